"""What all models' operations have in common on a GPU: weights, products, and activations on their way into one."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.errors import UnsupportedError
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import Linear, linear
from cupola.kernels.gpu.norm import NormSpec, normed
from cupola.kernels.gpu.position import rotary_table
from cupola.kernels.gpu.rows import convert
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.kernels.operations import PLAIN, Activation, Epilogue, Matrix, NormWeights
from cupola.quantize.formats import Format
from cupola.quantize.layouts import OUT_BLOCK, words_dtype, words_shape

MOST_WORDS = 2**31 - 1  # of a matrix: kernels count them in int32


class GpuProducts:
    """Matrix products for one kind of device. Every operation is one call of a kernel."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._kernels: dict[Hashable, tirx.PrimFunc] = {}

    def _kernel(self, emit: Callable[..., tirx.PrimFunc], *key: Hashable) -> tirx.PrimFunc:
        """The kernel that `emit` makes from `key`; layers of one shape share it."""
        if (emit, *key) not in self._kernels:
            self._kernels[(emit, *key)] = emit(*key)
        return self._kernels[(emit, *key)]

    def _packed(self, matrix: Matrix) -> Packed:
        return Packed(matrix.format, matrix.rows, matrix.inputs, self._gpu.half)

    def vector(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(shape, "float32")

    def matrix(self, fmt: Format, rows: int, inputs: int) -> Matrix:
        shape = words_shape(fmt, (rows, inputs))
        if math.prod(shape) > MOST_WORDS:
            raise UnsupportedError(
                f"a matrix [{rows}, {inputs}] in {fmt.value} is too large for a GPU's kernels, which count in int32",
                hint="choose fewer bits (--quant q4), or compile for a CPU",
            )
        return Matrix(shape, words_dtype(fmt).name, fmt, rows, inputs)

    def activation(self, x: nn.Tensor, matrix: Matrix, norm: NormWeights | None = None) -> Activation:
        width, dtype = matrix.inputs, self._gpu.stored
        out = tensor(dtype, x.shape[0], width)
        if norm is not None:
            function = self._kernel(normed, norm_spec(width, norm), str(x.dtype), dtype, self._gpu.threads)
            return (op.tensor_ir_op(function, "norm", [x, *norm_args(norm)], out),)
        if str(x.dtype) == dtype:
            return (x,)
        return (op.tensor_ir_op(self._kernel(convert, width, str(x.dtype), dtype), "convert", [x], out),)

    def rotary_table(self, positions: nn.Tensor, frequencies: Sequence[float], magnitude: float) -> nn.Tensor:
        half = len(frequencies)
        constant = nn.Tensor.from_const(np.asarray(frequencies, dtype=np.float32))
        function = self._kernel(rotary_table, half, magnitude)
        out = tensor("float32", positions.shape[0], 2, half)
        return op.tensor_ir_op(function, "rotary_table", [positions, constant], out)

    def linear(self, x: Activation, matrix: Matrix, epilogue: Epilogue = PLAIN) -> nn.Tensor:
        spec = self._linear(x, matrix, epilogue)
        args = [*x, matrix, *(tensor for tensor in (epilogue.bias, epilogue.residual) if tensor is not None)]
        out = [tensor(spec.y, x[0].shape[0], spec.ending.width), *self._parts(spec)]
        results = op.tensor_ir_op(self._kernel(linear, spec), spec.name, args, out)
        return results[0] if spec.partial_sums else results

    def _linear(self, x: Activation, matrix: Matrix, epilogue: Epilogue) -> Linear:
        packed = self._packed(matrix)
        width = packed.blocks * OUT_BLOCK // (2 if epilogue.gated else 1)
        dtype = "float32" if epilogue.wide or epilogue.residual is not None else self._gpu.stored
        return Linear(packed, Ending.of(epilogue, matrix.rows, width), str(x[0].dtype), dtype, self._gpu)

    @staticmethod
    def _parts(spec: Linear) -> list[nn.Tensor]:
        """Memory of a product for itself."""
        return [tensor("float32", spec.partial_sums)] if spec.partial_sums else []


def tensor(dtype: str, *shape: object) -> nn.Tensor:
    """A result of this type and shape."""
    return nn.Tensor.placeholder(list(shape), dtype)


def like(x: nn.Tensor) -> nn.Tensor:
    """A result of the type and shape of another tensor."""
    return nn.Tensor.placeholder(x.shape, x.dtype)


def norm_spec(width: int, norm: NormWeights) -> NormSpec:
    """What a kernel has to know of a norm."""
    return NormSpec(width, norm.eps, norm.centered, norm.bias is not None)


def norm_args(norm: NormWeights) -> list[nn.Tensor]:
    """The tensors that a kernel takes for a norm."""
    return [norm.weight] if norm.bias is None else [norm.weight, norm.bias]
