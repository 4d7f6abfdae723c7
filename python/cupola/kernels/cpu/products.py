"""What decoders and encoders have in common on a CPU: weights, products, what leads into one, and positions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu.activation import Codes, NormSpec, normed, quantize
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear import linear as emit_linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.kernels.cpu.position import rotary_table
from cupola.kernels.operations import PLAIN, Activation, Epilogue, Matrix, NormWeights
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

    def vector(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(shape, "float32")

    def matrix(self, fmt: Format, rows: int, inputs: int) -> Matrix:
        return Matrix(packed_shape(fmt, (rows, inputs)), packed_dtype(fmt).name, fmt, rows, inputs)

    def activation(self, x: nn.Tensor, matrix: Matrix, norm: NormWeights | None = None) -> Activation:
        codes, width = codes_of(matrix.format), matrix.inputs
        if norm is not None:
            function = self._kernel(normed, width, norm_spec(norm), codes)
            return call_for_product(function, "norm", [x, *norm_args(norm)], width, codes)
        return self._quantized(x, width, codes)

    def _quantized(self, x: nn.Tensor, width: int, codes: Codes) -> Activation:
        """x [n, width] as a product takes it."""
        if codes is None:
            return (x,)
        return call_for_product(self._kernel(quantize, width, codes), "quantize", [x], width, codes)

    def rotary_table(self, positions: nn.Tensor, frequencies: Sequence[float], magnitude: float) -> nn.Tensor:
        half = len(frequencies)
        constant = nn.Tensor.from_const(np.asarray(frequencies, dtype=np.float32))
        function = self._kernel(rotary_table, half, magnitude)
        return op.tensor_ir_op(function, "rotary_table", [positions, constant], f32_tensor(positions.shape[0], 2, half))

    def linear(self, x: Activation, matrix: Matrix, epilogue: Epilogue = PLAIN) -> nn.Tensor:
        bias, residual = epilogue.bias, epilogue.residual
        spec = LinearSpec(
            matrix.format,
            matrix.inputs,
            matrix.rows,
            residual=residual is not None,
            gated=epilogue.gated,
            bias=bias is not None,
            function=epilogue.function,
            scale=epilogue.scale,
            cap=epilogue.cap,
        )
        args = [*x, matrix, *(tensor for tensor in (bias, residual) if tensor is not None)]
        return op.tensor_ir_op(
            self._kernel(emit_linear, spec, self._isa), spec.name, args, f32_tensor(args[0].shape[0], spec.width)
        )


def f32_tensor(*shape: object) -> nn.Tensor:
    """A float32 result of this shape."""
    return nn.Tensor.placeholder(list(shape), "float32")


def codes_of(fmt: Format) -> Codes:
    """The integers that a product with such weights takes."""
    if fmt is Format.Q16:
        return "int16"
    return "int8" if fmt.grouped else None


def row_tensors(n: object, width: int, codes: Codes) -> list[nn.Tensor]:
    """The results of a kernel that leaves n rows to a product: floats, or integers and what scales their groups."""
    if codes is None:
        return [f32_tensor(n, width)]
    scales = (n, width // GROUP) if codes == "int16" else (n, width // GROUP, 2)
    return [nn.Tensor.placeholder([n, width], codes), f32_tensor(*scales)]


def call_for_product(function: tirx.PrimFunc, name: str, args: list[nn.Tensor], width: int, codes: Codes) -> Activation:
    """Calls a kernel whose results are the input of a product with `width` inputs."""
    tensors = row_tensors(args[0].shape[0], width, codes)
    found = op.tensor_ir_op(function, name, args, tensors if codes else tensors[0])
    return tuple(found) if codes else (found,)


def norm_spec(norm: NormWeights) -> NormSpec:
    """What a kernel has to know of a norm."""
    return NormSpec(norm.eps, norm.centered, norm.bias is not None)


def norm_args(norm: NormWeights) -> list[nn.Tensor]:
    """The tensors that a kernel takes for a norm."""
    return [norm.weight] if norm.bias is None else [norm.weight, norm.bias]
