"""The operations of latent attention on a CPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu.attention import split_slots
from cupola.kernels.cpu.attention_step import BLOCK
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.latent import ByHeadSpec, append_latent, linear_by_head, split_queries
from cupola.kernels.cpu.latent_attention import latent_attention
from cupola.kernels.cpu.latent_pages import LatentLayout
from cupola.kernels.cpu.operations import CpuOperations
from cupola.kernels.cpu.products import codes_of, f32_tensor
from cupola.kernels.latent_shape import LatentShape
from cupola.kernels.operations import Matrix, NormWeights, Pages, Step


class CpuLatentOperations(CpuOperations):
    """Implements `kernels.latent_operations.LatentOperations` for one instruction set and one layout of pages."""

    def __init__(self, isa: Isa, shape: LatentShape, layout: LatentLayout) -> None:
        super().__init__(isa, layout.heads, layout)
        self._shape, self._layout = shape, layout

    def append_latent(self, x: nn.Tensor, norm: NormWeights, table: nn.Tensor, step: Step, pages: Pages) -> Pages:
        return op.tensor_ir_inplace_op(
            self._kernel(append_latent, self._layout, int(x.shape[1]), norm.eps),
            "append_latent",
            [x, norm.weight, table, step.slots, pages],
            inplace_indices=[4],
            out=nn.Tensor.placeholder(pages.shape, pages.dtype),
        )

    def split_queries(self, q: nn.Tensor, table: nn.Tensor, scale: float) -> tuple[nn.Tensor, nn.Tensor]:
        shape, n = self._shape, q.shape[0]
        plain, rotated = op.tensor_ir_op(
            self._kernel(split_queries, shape, int(q.shape[1]), scale),
            "split_queries",
            [q, table],
            [f32_tensor(n, shape.heads * shape.plain), f32_tensor(n, shape.heads * shape.rotary)],
        )
        return plain, rotated

    def linear_by_head(self, x: nn.Tensor, matrix: Matrix) -> nn.Tensor:
        heads = self._shape.heads
        spec = ByHeadSpec(matrix.format, heads, matrix.inputs, matrix.rows // heads)
        args = [*self._quantized(x, heads * matrix.inputs, codes_of(matrix.format)), matrix]
        return op.tensor_ir_op(
            self._kernel(linear_by_head, spec, self._isa), "linear_by_head", args, f32_tensor(x.shape[0], matrix.rows)
        )

    def attend_latent(self, q: nn.Tensor, r: nn.Tensor, step: Step, pages: Pages) -> nn.Tensor:
        heads, width = self._shape.heads, self._shape.heads * self._shape.latent
        slots = split_slots(step.page_ids.shape[0], step.kv_len.shape[0], BLOCK // self._layout.page_size)
        y, _, _ = op.tensor_ir_op(
            self._kernel(latent_attention, self._layout, self._isa),
            "latent_attention",
            [q, r, pages, step.q_indptr, step.page_indptr, step.page_ids, step.kv_len],
            [f32_tensor(q.shape[0], width), f32_tensor(slots, width), f32_tensor(slots, heads, 2)],
        )
        return y
