"""The decoder's operations on a CPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu import activation, attention, position, rows
from cupola.kernels.cpu.expert_operations import CpuExperts
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.pages import HeadShape, PageLayout
from cupola.kernels.cpu.products import f32_tensor, norm_args, norm_spec
from cupola.kernels.operations import Activation, Epilogue, Matrix, NormWeights, Pages, Step


class CpuOperations(CpuExperts):
    """Implements `kernels.operations.Operations` for one instruction set and one layout of pages."""

    def __init__(self, isa: Isa, heads: HeadShape, pages: PageLayout) -> None:
        super().__init__(isa)
        self._heads, self._pages = heads, pages

    @property
    def page_elements(self) -> int:
        return self._pages.elements

    def embed(self, step: Step, table: Matrix, positions: nn.Tensor | None, scale: float) -> nn.Tensor:
        function = self._kernel(rows.embed, table.format, table.rows, table.inputs, scale)
        x = op.tensor_ir_op(function, "embed", [step.ids, table], f32_tensor(step.ids.shape[0], table.inputs))
        if positions is None:
            return x
        count, width = (int(extent) for extent in positions.shape)
        function = self._kernel(rows.add_rows, count, width)
        return op.tensor_ir_op(function, "add_positions", [x, positions, step.positions], f32_tensor(*x.shape))

    def add_normed(self, x: nn.Tensor, y: nn.Tensor, norm: NormWeights) -> nn.Tensor:
        function = self._kernel(activation.add_normed, int(x.shape[1]), norm_spec(norm))
        return op.tensor_ir_op(function, "add_normed", [x, y, *norm_args(norm)], f32_tensor(*x.shape))

    def norm_heads(
        self, qkv: nn.Tensor, q_norm: nn.Tensor, k_norm: nn.Tensor, eps: float, *, centered: bool, by_head: bool
    ) -> nn.Tensor:
        spec = position.HeadNormSpec(self._heads, int(qkv.shape[1]), by_head, eps, centered)
        return op.tensor_ir_op(
            self._kernel(position.norm_heads, spec), "norm_heads", [qkv, q_norm, k_norm], f32_tensor(*qkv.shape)
        )

    def rotate_append(
        self, qkv: nn.Tensor, table: nn.Tensor | None, step: Step, pages: Pages, *, query_scale: float | None = None
    ) -> tuple[nn.Tensor, Pages]:
        rotary_dim = 0 if table is None else 2 * int(table.shape[2])
        spec = position.AppendSpec(self._heads, self._pages, int(qkv.shape[1]), rotary_dim, query_scale)
        args = [qkv, *([] if table is None else [table]), step.slots, pages]
        updated, q = op.tensor_ir_inplace_op(
            self._kernel(position.rotate_append, spec),
            "rotate_append",
            args,
            inplace_indices=[len(args) - 1, -1],
            out=[
                nn.Tensor.placeholder(pages.shape, pages.dtype),
                f32_tensor(qkv.shape[0], self._heads.queries * self._heads.dim),
            ],
        )
        return q, updated

    def project_append(
        self,
        x: Activation,
        matrix: Matrix,
        bias: nn.Tensor | None,
        table: nn.Tensor | None,
        step: Step,
        pages: Pages,
        *,
        query_scale: float | None = None,
    ) -> tuple[nn.Tensor, Pages]:
        return self.rotate_append(self.linear(x, matrix, Epilogue(bias)), table, step, pages, query_scale=query_scale)

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
