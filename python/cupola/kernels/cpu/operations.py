"""The decoder's operations on a CPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu import activation, attention, position, rows
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.pages import HeadShape, PageLayout
from cupola.kernels.cpu.products import CpuProducts, f32_tensor, quantized_tensors
from cupola.kernels.operations import Activation, Matrix, Pages, Step
from cupola.quantize.formats import Format


class CpuOperations(CpuProducts):
    """Implements `kernels.operations.Operations` for one instruction set and one layout of pages."""

    def __init__(self, isa: Isa, heads: HeadShape, pages: PageLayout, rotary_dim: int) -> None:
        super().__init__(isa)
        self._heads, self._pages, self._rotary_dim = heads, pages, rotary_dim

    @property
    def page_elements(self) -> int:
        return self._pages.elements

    def embed(self, ids: nn.Tensor, table: Matrix) -> nn.Tensor:
        function = self._kernel(rows.embed, table.format, table.rows, table.inputs)
        return op.tensor_ir_op(function, "embed", [ids, table], f32_tensor(ids.shape[0], table.inputs))

    def rotary_table(self, positions: nn.Tensor, frequencies: Sequence[float], magnitude: float) -> nn.Tensor:
        half = len(frequencies)
        constant = nn.Tensor.from_const(np.asarray(frequencies, dtype=np.float32))
        function = self._kernel(position.rotary_table, half, magnitude)
        return op.tensor_ir_op(function, "rotary_table", [positions, constant], f32_tensor(positions.shape[0], 2, half))

    def normed_activation(self, x: nn.Tensor, weight: nn.Tensor, eps: float, matrix: Matrix) -> Activation:
        n, k = x.shape[0], matrix.inputs
        if matrix.format is Format.Q16:
            function = self._kernel(activation.rms_norm, k, eps)
            return self.activation(op.tensor_ir_op(function, "rms_norm", [x, weight], f32_tensor(n, k)), matrix)
        if not matrix.format.grouped:
            return (
                op.tensor_ir_op(self._kernel(activation.rms_norm, k, eps), "rms_norm", [x, weight], f32_tensor(n, k)),
            )
        function = self._kernel(activation.quantize, k, eps)
        return tuple(op.tensor_ir_op(function, "norm_quantize", [x, weight], quantized_tensors(n, k)))

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
                f32_tensor(qkv.shape[0], self._heads.queries * self._heads.dim),
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
            [f32_tensor(q.shape[0], width), f32_tensor(slots, width), f32_tensor(slots, self._heads.queries, 2)],
        )
        return y

    def take(self, x: nn.Tensor, rows_: nn.Tensor) -> nn.Tensor:
        width = int(x.shape[1])
        return op.tensor_ir_op(
            self._kernel(rows.take, width), "take_rows", [x, rows_], f32_tensor(rows_.shape[0], width)
        )
