"""The encoder's operations on a CPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu import encoder_rows, layer_norm
from cupola.kernels.cpu.encoder_attention import EncoderAttentionSpec, encoder_attention
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.products import CpuProducts, call_for_product, codes_of, f32_tensor, norm_args, row_tensors
from cupola.kernels.encoder_operations import EncoderStep, Positions, Tables
from cupola.kernels.operations import Activation, Matrix, NormWeights
from cupola.quantize.floats import FLOAT_DTYPES
from cupola.quantize.formats import Format


class CpuEncoderOperations(CpuProducts):
    """Implements `kernels.encoder_operations.EncoderOperations` for one instruction set."""

    def __init__(self, isa: Isa, attention: EncoderAttentionSpec) -> None:
        """`attention`: what all layers have in common."""
        super().__init__(isa)
        self._attention = attention

    def table(self, fmt: Format, rows: int, width: int) -> nn.Parameter:
        return nn.Parameter((rows, width), FLOAT_DTYPES[fmt].name)

    def embed(self, step: EncoderStep, tables: Tables, norm: NormWeights) -> nn.Tensor:
        words, width = (int(extent) for extent in tables.words.shape)
        places, types = (0 if t is None else int(t.shape[0]) for t in (tables.positions, tables.types))
        spec = encoder_rows.EmbedSpec(
            width, words, places, types, tables.first_position, str(tables.words.dtype), norm.eps, norm.bias is not None
        )
        args = [step.ids, tables.words]
        args += [] if tables.positions is None else [step.positions, tables.positions]
        args += [] if tables.types is None else [step.types, tables.types]
        return op.tensor_ir_op(
            self._kernel(encoder_rows.embed, spec),
            "encoder_embed",
            [*args, *norm_args(norm)],
            f32_tensor(step.ids.shape[0], width),
        )

    def attention(self, qkv: nn.Tensor, bias: nn.Tensor | None, step: EncoderStep, positions: Positions) -> nn.Tensor:
        table, relative, most = positions.table, positions.relative, self._attention.max_tokens
        spec = replace(
            self._attention,
            biased=bias is not None,
            rotary_dim=0 if table is None else 2 * int(table.shape[2]),
            window=positions.window,
            buckets=0 if relative is None else int(relative.shape[0]),
        )
        args = [qkv, step.q_indptr, *(tensor for tensor in (bias, table) if tensor is not None)]
        if relative is not None and positions.bucket_of is not None:
            buckets = positions.bucket_of(np.arange(1 - most, most)).astype(np.int32)
            args += [nn.Tensor.from_const(buckets), relative]
        function = self._kernel(encoder_attention, spec, self._isa)
        return op.tensor_ir_op(function, "encoder_attention", args, f32_tensor(qkv.shape[0], spec.width))

    def norm(
        self, x: nn.Tensor, bias: nn.Tensor | None, norm: NormWeights, matrix: Matrix | None
    ) -> tuple[nn.Tensor, Activation]:
        n, width = x.shape[0], int(x.shape[1])
        codes = None if matrix is None else codes_of(matrix.format)
        spec = layer_norm.LayerNormSpec(width, norm.eps, bias is not None, norm.bias is not None)
        function = self._kernel(layer_norm.layer_norm, spec, codes)
        args = [tensor for tensor in (x, norm.weight, bias, norm.bias) if tensor is not None]
        if codes is None:
            y = op.tensor_ir_op(function, "layer_norm", args, f32_tensor(n, width))
            return y, (y,)
        results = [f32_tensor(n, width), *row_tensors(n, width, codes)]
        y, q, s = op.tensor_ir_op(function, "layer_norm_quantize", args, results)
        return y, (q, s)

    def activated(self, x: nn.Tensor, bias: nn.Tensor, function: str, matrix: Matrix) -> Activation:
        width, codes = int(x.shape[1]), codes_of(matrix.format)
        kernel = self._kernel(layer_norm.activate, width, function, codes)
        return call_for_product(kernel, function, [x, bias], width, codes)

    def pool(self, x: nn.Tensor, step: EncoderStep, how: str, normalize: bool) -> nn.Tensor:
        width = int(x.shape[1])
        function = self._kernel(encoder_rows.pool, width, how, normalize)
        return op.tensor_ir_op(
            function, f"pool_{how}", [x, step.q_indptr], f32_tensor(step.q_indptr.shape[0] - 1, width)
        )

    def project(self, x: nn.Tensor, weight: nn.Tensor, bias: nn.Tensor) -> nn.Tensor:
        outputs, width = (int(extent) for extent in weight.shape)
        function = self._kernel(encoder_rows.project, width, outputs)
        return op.tensor_ir_op(function, "project", [x, weight, bias], f32_tensor(x.shape[0], outputs))
