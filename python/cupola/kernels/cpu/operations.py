"""The decoder's operations on a CPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu import activation, attention, position, rows
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear import linear as emit_linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.kernels.cpu.pages import HeadShape, PageLayout
from cupola.kernels.operations import Activation, Matrix, Pages, Step
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import packed_dtype, packed_shape


class CpuOperations:
    """Implements `kernels.operations.Operations` for one instruction set and one layout of pages."""

    def __init__(self, isa: Isa, heads: HeadShape, pages: PageLayout, rotary_dim: int) -> None:
        self._isa, self._heads, self._pages, self._rotary_dim = isa, heads, pages, rotary_dim
        self._kernels: dict[Hashable, tirx.PrimFunc] = {}

    @property
    def page_elements(self) -> int:
        return self._pages.elements

    def _kernel(self, emit: Callable[..., tirx.PrimFunc], *key: Hashable) -> tirx.PrimFunc:
        """The kernel that `emit` makes from `key`; layers of one shape share it."""
        if (emit, *key) not in self._kernels:
            self._kernels[(emit, *key)] = emit(*key)
        return self._kernels[(emit, *key)]

    def vector(self, size: int) -> nn.Parameter:
        return nn.Parameter((size,), "float32")

    def matrix(self, fmt: Format, rows: int, inputs: int) -> Matrix:
        return Matrix(packed_shape(fmt, (rows, inputs)), packed_dtype(fmt).name, fmt, rows, inputs)

    def embed(self, ids: nn.Tensor, table: Matrix) -> nn.Tensor:
        function = self._kernel(rows.embed, table.format, table.rows, table.inputs)
        return op.tensor_ir_op(function, "embed", [ids, table], _f32(ids.shape[0], table.inputs))

    def rotary_table(self, positions: nn.Tensor, frequencies: Sequence[float], magnitude: float) -> nn.Tensor:
        half = len(frequencies)
        constant = nn.Tensor.from_const(np.asarray(frequencies, dtype=np.float32))
        function = self._kernel(position.rotary_table, half, magnitude)
        return op.tensor_ir_op(function, "rotary_table", [positions, constant], _f32(positions.shape[0], 2, half))

    def activation(self, x: nn.Tensor, matrix: Matrix) -> Activation:
        if not matrix.format.grouped:
            return (x,)
        function = self._kernel(activation.quantize, matrix.inputs, None)
        return tuple(op.tensor_ir_op(function, "quantize", [x], _quantized(x.shape[0], matrix.inputs)))

    def normed_activation(self, x: nn.Tensor, weight: nn.Tensor, eps: float, matrix: Matrix) -> Activation:
        n, k = x.shape[0], matrix.inputs
        if not matrix.format.grouped:
            return (op.tensor_ir_op(self._kernel(activation.rms_norm, k, eps), "rms_norm", [x, weight], _f32(n, k)),)
        function = self._kernel(activation.quantize, k, eps)
        return tuple(op.tensor_ir_op(function, "norm_quantize", [x, weight], _quantized(n, k)))

    def linear(self, x: Activation, matrix: Matrix, residual: nn.Tensor | None = None) -> nn.Tensor:
        spec = LinearSpec(matrix.format, matrix.inputs, matrix.rows, residual=residual is not None)
        return self._product(spec, [*x, matrix, *([] if residual is None else [residual])])

    def gated_linear(self, x: Activation, matrix: Matrix) -> nn.Tensor:
        return self._product(LinearSpec(matrix.format, matrix.inputs, matrix.rows, gated=True), [*x, matrix])

    def _product(self, spec: LinearSpec, args: list[nn.Tensor]) -> nn.Tensor:
        return op.tensor_ir_op(
            self._kernel(emit_linear, spec, self._isa), spec.name, args, _f32(args[0].shape[0], spec.width)
        )

    def rotate_append(
        self, qkv: nn.Tensor, table: nn.Tensor, step: Step, pages: Pages, *, query_scale: float | None = None
    ) -> tuple[nn.Tensor, Pages]:
        spec = position.AppendSpec(self._heads, self._pages, int(qkv.shape[1]), self._rotary_dim, query_scale)
        updated, q = op.tensor_ir_inplace_op(
            self._kernel(position.rotate_append, spec),
            "rotate_append",
            [qkv, table, step.slots, pages],
            inplace_indices=[3, -1],
            out=[
                nn.Tensor.placeholder(pages.shape, pages.dtype),
                _f32(qkv.shape[0], self._heads.queries * self._heads.dim),
            ],
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
        spec = attention.AttentionSpec(self._heads, self._pages, window, soft_cap, sinks is not None)
        width = self._heads.queries * self._heads.dim
        slots = attention.split_slots(step.page_ids.shape[0], step.kv_len.shape[0], spec.block_pages)
        y, _, _ = op.tensor_ir_op(
            self._kernel(attention.attention, spec, self._isa),
            "attention",
            [
                q,
                pages,
                step.q_indptr,
                step.page_indptr,
                step.page_ids,
                step.kv_len,
                *([] if sinks is None else [sinks]),
            ],
            [_f32(q.shape[0], width), _f32(slots, width), _f32(slots, self._heads.queries, 2)],
        )
        return y

    def take(self, x: nn.Tensor, rows_: nn.Tensor) -> nn.Tensor:
        width = int(x.shape[1])
        return op.tensor_ir_op(self._kernel(rows.take, width), "take_rows", [x, rows_], _f32(rows_.shape[0], width))


def _f32(*shape: object) -> nn.Tensor:
    return nn.Tensor.placeholder(list(shape), "float32")


def _quantized(n: object, width: int) -> list[nn.Tensor]:
    return [nn.Tensor.placeholder([n, width], "int8"), _f32(n, width // GROUP, 2)]
