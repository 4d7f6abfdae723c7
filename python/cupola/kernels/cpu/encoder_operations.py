"""The encoder's operations on a CPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu import encoder_rows, layer_norm
from cupola.kernels.cpu.encoder_attention import EncoderAttentionSpec, encoder_attention
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.products import CpuProducts, call_for_product, codes_of, f32_tensor, row_tensors
from cupola.kernels.encoder_operations import EncoderStep, Norm, Tables
from cupola.kernels.operations import Activation, Matrix
from cupola.quantize.floats import FLOAT_DTYPES
from cupola.quantize.formats import Format


class CpuEncoderOperations(CpuProducts):
    """Implements `kernels.encoder_operations.EncoderOperations` for one instruction set."""

    def __init__(self, isa: Isa, attention: EncoderAttentionSpec) -> None:
        super().__init__(isa)
        self._attention = attention

    def table(self, fmt: Format, rows: int, width: int) -> nn.Parameter:
        return nn.Parameter((rows, width), FLOAT_DTYPES[fmt].name)

    def embed(self, step: EncoderStep, tables: Tables, norm: Norm) -> nn.Tensor:
        (words, width), positions, types = tables.words.shape, tables.positions.shape[0], tables.types.shape[0]
        sizes = (int(width), int(words), int(positions), int(types))
        spec = encoder_rows.EmbedSpec(*sizes, tables.first_position, str(tables.words.dtype), norm.eps)
        args = [step.ids, step.positions, step.types, tables.words, tables.positions, tables.types]
        return op.tensor_ir_op(
            self._kernel(encoder_rows.embed, spec),
            "encoder_embed",
            [*args, norm.weight, norm.bias],
            f32_tensor(step.ids.shape[0], width),
        )

    def attention(self, qkv: nn.Tensor, bias: nn.Tensor, step: EncoderStep) -> nn.Tensor:
        function = self._kernel(encoder_attention, self._attention, self._isa)
        out = f32_tensor(qkv.shape[0], self._attention.width)
        return op.tensor_ir_op(function, "encoder_attention", [qkv, bias, step.q_indptr], out)

    def norm(self, x: nn.Tensor, bias: nn.Tensor, norm: Norm, matrix: Matrix | None) -> tuple[nn.Tensor, Activation]:
        n, width = x.shape[0], int(x.shape[1])
        codes = None if matrix is None else codes_of(matrix.format)
        function = self._kernel(layer_norm.layer_norm, width, norm.eps, codes)
        args = [x, bias, norm.weight, norm.bias]
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
