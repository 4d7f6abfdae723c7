"""What decoders and encoders have in common on a CPU: weights, products, and activations on their way into one."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu import activation, wide
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear import linear as emit_linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.kernels.operations import Activation, Matrix
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import packed_dtype, packed_shape


class CpuProducts:
    """Matrix products for one instruction set. Every operation is one call of a kernel."""

    def __init__(self, isa: Isa) -> None:
        self._isa = isa
        self._kernels: dict[Hashable, tirx.PrimFunc] = {}

    def _kernel(self, emit: Callable[..., tirx.PrimFunc], *key: Hashable) -> tirx.PrimFunc:
        """The kernel that `emit` makes from `key`; layers of one shape share it."""
        if (emit, *key) not in self._kernels:
            self._kernels[(emit, *key)] = emit(*key)
        return self._kernels[(emit, *key)]

    def vector(self, size: int) -> nn.Parameter:
        return nn.Parameter((size,), "float32")

    def matrix(self, fmt: Format, rows: int, inputs: int) -> Matrix:
        return Matrix(packed_shape(fmt, (rows, inputs)), packed_dtype(fmt).name, fmt, rows, inputs)

    def activation(self, x: nn.Tensor, matrix: Matrix) -> Activation:
        if matrix.format is Format.Q16:
            function = self._kernel(wide.quantize_wide, matrix.inputs)
            return tuple(op.tensor_ir_op(function, "quantize_wide", [x], wide_tensors(x.shape[0], matrix.inputs)))
        if not matrix.format.grouped:
            return (x,)
        function = self._kernel(activation.quantize, matrix.inputs, None)
        return tuple(op.tensor_ir_op(function, "quantize", [x], quantized_tensors(x.shape[0], matrix.inputs)))

    def linear(self, x: Activation, matrix: Matrix, residual: nn.Tensor | None = None) -> nn.Tensor:
        spec = LinearSpec(matrix.format, matrix.inputs, matrix.rows, residual=residual is not None)
        return self._product(spec, [*x, matrix, *([] if residual is None else [residual])])

    def gated_linear(self, x: Activation, matrix: Matrix) -> nn.Tensor:
        return self._product(LinearSpec(matrix.format, matrix.inputs, matrix.rows, gated=True), [*x, matrix])

    def _product(self, spec: LinearSpec, args: list[nn.Tensor]) -> nn.Tensor:
        return op.tensor_ir_op(
            self._kernel(emit_linear, spec, self._isa), spec.name, args, f32_tensor(args[0].shape[0], spec.width)
        )


def f32_tensor(*shape: object) -> nn.Tensor:
    """A float32 result of this shape."""
    return nn.Tensor.placeholder(list(shape), "float32")


def quantized_tensors(n: object, width: int) -> list[nn.Tensor]:
    """The results of a kernel that quantizes n rows: integers, and for each group its scale and sum."""
    return [nn.Tensor.placeholder([n, width], "int8"), f32_tensor(n, width // GROUP, 2)]


def wide_tensors(n: object, width: int) -> list[nn.Tensor]:
    """The results of a kernel that quantizes n rows to 14 bits: integers, and the scale of each group."""
    return [nn.Tensor.placeholder([n, width], "int16"), f32_tensor(n, width // GROUP)]
