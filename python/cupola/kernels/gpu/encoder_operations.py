"""The encoder's operations on a GPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.encoder_operations import EncoderStep, Positions, Tables
from cupola.kernels.gpu import encoder_rows
from cupola.kernels.gpu.encoder_attention import EncoderAttention, encoder_attention, prepare
from cupola.kernels.gpu.products import GpuProducts, like, norm_args, norm_spec, tensor
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.operations import Activation, Matrix, NormWeights
from cupola.quantize.formats import Format
from cupola.quantize.layouts import words_dtype


class GpuEncoderOperations(GpuProducts):
    """Implements `kernels.encoder_operations.EncoderOperations` for one kind of device.

    The residual stream is float32; what goes from product to product is of the device's own type.
    """

    def __init__(self, gpu: Gpu, heads: int, dim: int, max_tokens: int) -> None:
        """Args: the heads that all layers have, and most tokens of a sequence."""
        super().__init__(gpu)
        self._attention = EncoderAttention(heads, dim, max_tokens, gpu.stored, gpu.shared_bytes)

    def table(self, fmt: Format, rows: int, width: int) -> nn.Parameter:
        return nn.Parameter((rows, encoder_rows.table_width(fmt, width)), words_dtype(fmt).name)

    def embed(self, step: EncoderStep, tables: Tables, norm: NormWeights) -> nn.Tensor:
        width = int(norm.weight.shape[0])
        places, types = (0 if t is None else int(t.shape[0]) for t in (tables.positions, tables.types))
        words = Format.F32 if str(tables.words.dtype) == "float32" else Format.F16
        spec = encoder_rows.Embed(
            norm_spec(width, norm),
            words,
            int(tables.words.shape[0]),
            places,
            types,
            tables.first_position,
            self._gpu.half,
        )
        args = [step.ids, tables.words]
        args += [] if tables.positions is None else [step.positions, tables.positions]
        args += [] if tables.types is None else [step.types, tables.types]
        function = self._kernel(encoder_rows.embed, spec, self._gpu.threads)
        out = tensor("float32", step.ids.shape[0], width)
        return op.tensor_ir_op(function, "encoder_embed", [*args, *norm_args(norm)], out)

    def attention(self, qkv: nn.Tensor, bias: nn.Tensor | None, step: EncoderStep, positions: Positions) -> nn.Tensor:
        table, relative, most = positions.table, positions.relative, self._attention.max_tokens
        if bias is not None or table is not None:
            qkv = self._prepared(qkv, bias, table)
        spec = replace(
            self._attention, window=positions.window, buckets=0 if relative is None else int(relative.shape[0])
        )
        args = [qkv, step.q_indptr]
        if relative is not None and positions.bucket_of is not None:
            buckets = positions.bucket_of(np.arange(1 - most, most)).astype(np.int32)
            args += [nn.Tensor.from_const(buckets), relative]
        out = tensor(str(qkv.dtype), qkv.shape[0], spec.width)
        return op.tensor_ir_op(self._kernel(encoder_attention, spec), "encoder_attention", args, out)

    def _prepared(self, qkv: nn.Tensor, bias: nn.Tensor | None, table: nn.Tensor | None) -> nn.Tensor:
        heads, dim, dtype = self._attention.heads, self._attention.dim, str(qkv.dtype)
        rotary_dim = 0 if table is None else 2 * int(table.shape[2])

        function = self._kernel(prepare, heads, dim, rotary_dim, bias is not None, dtype)
        args = [tensor_ for tensor_ in (qkv, bias, table) if tensor_ is not None]
        return op.tensor_ir_op(function, "encoder_prepare", args, like(qkv))

    def norm(
        self, x: nn.Tensor, bias: nn.Tensor | None, norm: NormWeights, matrix: Matrix | None
    ) -> tuple[nn.Tensor, Activation]:
        n, width = x.shape[0], int(x.shape[1])
        other = None if matrix is None or self._gpu.stored == "float32" else self._gpu.stored
        spec = norm_spec(width, norm)
        function = self._kernel(
            encoder_rows.norm_biased, spec, str(x.dtype), other, self._gpu.threads, bias is not None
        )
        args = [x, *([] if bias is None else [bias]), *norm_args(norm)]
        if other is None:
            y = op.tensor_ir_op(function, "layer_norm", args, tensor("float32", n, width))
            return y, (y,)
        y, z = op.tensor_ir_op(function, "layer_norm", args, [tensor("float32", n, width), tensor(other, n, width)])
        return y, (z,)

    def activated(self, x: nn.Tensor, bias: nn.Tensor, function: str, matrix: Matrix) -> Activation:  # noqa: ARG002
        kernel = self._kernel(encoder_rows.activate, int(x.shape[1]), function, str(x.dtype))
        return (op.tensor_ir_op(kernel, function, [x, bias], like(x)),)

    def pool(self, x: nn.Tensor, step: EncoderStep, how: str, normalize: bool) -> nn.Tensor:
        width = int(x.shape[1])
        function = self._kernel(encoder_rows.pool, width, how, normalize)
        out = tensor("float32", step.q_indptr.shape[0] - 1, width)
        return op.tensor_ir_op(function, f"pool_{how}", [x, step.q_indptr], out)

    def project(self, x: nn.Tensor, weight: nn.Tensor, bias: nn.Tensor) -> nn.Tensor:
        outputs, width = (int(extent) for extent in weight.shape)
        function = self._kernel(encoder_rows.project, width, outputs, str(x.dtype))
        return op.tensor_ir_op(function, "project", [x, weight, bias], tensor("float32", x.shape[0], outputs))
