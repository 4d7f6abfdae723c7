"""The decoder's operations on a GPU: each is one call of a kernel of this folder, a function of the host that launches
one grid or several."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.gpu import attention, norm, position, rows
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import Linear, linear
from cupola.kernels.gpu.pages import GpuPages
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.kernels.operations import PLAIN, Activation, Epilogue, Matrix, NormWeights, Pages, Step
from cupola.quantize.formats import Format
from cupola.quantize.layouts import OUT_BLOCK, words_dtype, words_shape


class GpuOperations:
    """Implements `kernels.operations.Operations` for one kind of device and one layout of pages.

    The residual stream is float32, and so are logits; what goes from product to product is of the device's own type.
    """

    def __init__(self, gpu: Gpu, pages: GpuPages) -> None:
        self._gpu, self._pages, self._heads = gpu, pages, pages.heads
        self._kernels: dict[Hashable, tirx.PrimFunc] = {}

    @property
    def page_elements(self) -> int:
        return self._pages.elements

    def vector(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(shape, "float32")

    def matrix(self, fmt: Format, rows: int, inputs: int) -> Matrix:
        return Matrix(words_shape(fmt, (rows, inputs)), words_dtype(fmt).name, fmt, rows, inputs)

    def embed(self, step: Step, table: Matrix, positions: nn.Tensor | None, scale: float) -> nn.Tensor:
        function = self._kernel(rows.embed, self._packed(table), scale)
        x = op.tensor_ir_op(function, "embed", [step.ids, table], _tensor("float32", step.ids.shape[0], table.inputs))
        if positions is None:
            return x
        count, width = (int(extent) for extent in positions.shape)
        function = self._kernel(rows.add_rows, count, width)
        return op.tensor_ir_op(function, "add_positions", [x, positions, step.positions], _like(x))

    def rotary_table(self, positions: nn.Tensor, frequencies: Sequence[float], magnitude: float) -> nn.Tensor:
        half = len(frequencies)
        constant = nn.Tensor.from_const(np.asarray(frequencies, dtype=np.float32))
        function = self._kernel(position.rotary_table, half, magnitude)
        out = _tensor("float32", positions.shape[0], 2, half)
        return op.tensor_ir_op(function, "rotary_table", [positions, constant], out)

    def activation(self, x: nn.Tensor, matrix: Matrix, norm_: NormWeights | None = None) -> Activation:
        width, dtype = matrix.inputs, self._gpu.dtype
        out = _tensor(dtype, x.shape[0], width)
        if norm_ is not None:
            function = self._kernel(norm.normed, _norm_spec(width, norm_), str(x.dtype), dtype, self._gpu.threads)
            return (op.tensor_ir_op(function, "norm", [x, *_norm_args(norm_)], out),)
        if str(x.dtype) == dtype:
            return (x,)
        return (op.tensor_ir_op(self._kernel(rows.convert, width, str(x.dtype), dtype), "convert", [x], out),)

    def add_normed(self, x: nn.Tensor, y: nn.Tensor, norm_: NormWeights) -> nn.Tensor:
        spec = _norm_spec(int(x.shape[1]), norm_)
        function = self._kernel(norm.add_normed, spec, str(y.dtype), self._gpu.threads)
        return op.tensor_ir_op(function, "add_normed", [x, y, *_norm_args(norm_)], _like(x))

    def linear(self, x: Activation, matrix: Matrix, epilogue: Epilogue = PLAIN) -> nn.Tensor:
        packed = self._packed(matrix)
        width = packed.blocks * OUT_BLOCK // (2 if epilogue.gated else 1)
        dtype = "float32" if epilogue.wide or epilogue.residual is not None else self._gpu.dtype
        spec = Linear(packed, Ending.of(epilogue, matrix.rows, width), str(x[0].dtype), dtype, self._gpu)
        args = [*x, matrix, *(tensor for tensor in (epilogue.bias, epilogue.residual) if tensor is not None)]
        return op.tensor_ir_op(self._kernel(linear, spec), spec.name, args, _tensor(dtype, x[0].shape[0], width))

    def norm_heads(self, qkv: nn.Tensor, q_norm: nn.Tensor, k_norm: nn.Tensor, eps: float, centered: bool) -> nn.Tensor:
        by_head = int(q_norm.shape[0]) == self._heads.dim
        spec = norm.HeadNorm(self._heads, int(qkv.shape[1]), by_head, eps, centered, str(qkv.dtype))
        function = self._kernel(norm.norm_heads, spec, self._gpu.threads)
        return op.tensor_ir_op(function, "norm_heads", [qkv, q_norm, k_norm], _like(qkv))

    def rotate_append(
        self, qkv: nn.Tensor, table: nn.Tensor | None, step: Step, pages: Pages, *, query_scale: float | None = None
    ) -> tuple[nn.Tensor, Pages]:
        rotary_dim = 0 if table is None else 2 * int(table.shape[2])
        scale = self._heads.dim**-0.5 if query_scale is None else query_scale
        spec = position.Append(self._pages, int(qkv.shape[1]), rotary_dim, scale, str(qkv.dtype))
        args = [qkv, *([] if table is None else [table]), step.slots, pages]
        q = _tensor(str(qkv.dtype), qkv.shape[0], self._heads.queries * self._heads.dim)
        updated, q = op.tensor_ir_inplace_op(
            self._kernel(position.rotate_append, spec),
            "rotate_append",
            args,
            inplace_indices=[len(args) - 1, -1],
            out=[_like(pages), q],
        )
        return q, updated

    def attention(
        self,
        q: nn.Tensor,
        step: Step,
        pages: Pages,
        *,
        window: int = 0,
        soft_cap: float = 0.0,
        sinks: nn.Tensor | None = None,
    ) -> nn.Tensor:
        decode = _same(q.shape[0], step.kv_len.shape[0])
        spec = attention.Attention(self._pages, self._gpu, str(q.dtype), window, soft_cap, sinks is not None, decode)
        slots = tirx.floordiv(step.page_ids.shape[0] + step.kv_len.shape[0] * (spec.split_pages - 1), spec.split_pages)
        tables = [step.q_indptr, step.page_indptr, step.page_ids, step.kv_len]
        y, _, _ = op.tensor_ir_op(
            self._kernel(attention.attention, spec),
            "attention",
            [q, pages, *tables, *([] if sinks is None else [sinks])],
            [_like(q), _tensor("float32", slots, q.shape[1]), _tensor("float32", slots, self._heads.queries, 2)],
        )
        return y

    def take(self, x: nn.Tensor, rows_: nn.Tensor) -> nn.Tensor:
        width, dtype = int(x.shape[1]), str(x.dtype)
        function = self._kernel(rows.take, width, dtype)
        return op.tensor_ir_op(function, "take_rows", [x, rows_], _tensor(dtype, rows_.shape[0], width))

    def _kernel(self, emit: Callable[..., tirx.PrimFunc], *key: Hashable) -> tirx.PrimFunc:
        """The kernel that `emit` makes from `key`; layers of one shape share it."""
        if (emit, *key) not in self._kernels:
            self._kernels[(emit, *key)] = emit(*key)
        return self._kernels[(emit, *key)]

    def _packed(self, matrix: Matrix) -> Packed:
        return Packed(matrix.format, matrix.rows, matrix.inputs, self._gpu.half)


def _tensor(dtype: str, *shape: object) -> nn.Tensor:
    """A result of this type and shape."""
    return nn.Tensor.placeholder(list(shape), dtype)


def _like(x: nn.Tensor) -> nn.Tensor:
    return nn.Tensor.placeholder(x.shape, x.dtype)


def _same(a: object, b: object) -> bool:
    """Whether two extents are one symbolic variable."""
    return isinstance(a, tirx.Var) and isinstance(b, tirx.Var) and a.same_as(b)


def _norm_spec(width: int, norm_: NormWeights) -> norm.NormSpec:
    return norm.NormSpec(width, norm_.eps, norm_.centered, norm_.bias is not None)


def _norm_args(norm_: NormWeights) -> list[nn.Tensor]:
    return [norm_.weight] if norm_.bias is None else [norm_.weight, norm_.bias]
