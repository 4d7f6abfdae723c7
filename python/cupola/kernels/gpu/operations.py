"""The decoder's operations on a GPU: each is one call of a kernel of this folder, a function of the host that launches
one grid or several."""

from __future__ import annotations

from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.gpu import attention, norm, position, project, rows
from cupola.kernels.gpu.expert_operations import GpuExperts
from cupola.kernels.gpu.pages import GpuPages
from cupola.kernels.gpu.products import like, norm_args, norm_spec, tensor
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.operations import Activation, Epilogue, Matrix, NormWeights, Pages, Step


class GpuOperations(GpuExperts):
    """Implements `kernels.operations.Operations` for one kind of device and one layout of pages.

    The residual stream is float32, and so are logits; what goes from product to product is of the device's own type.
    """

    def __init__(self, gpu: Gpu, pages: GpuPages) -> None:
        super().__init__(gpu)
        self._pages, self._heads = pages, pages.heads

    @property
    def page_elements(self) -> int:
        return self._pages.elements

    def embed(self, step: Step, table: Matrix, positions: nn.Tensor | None, scale: float) -> nn.Tensor:
        function = self._kernel(rows.embed, self._packed(table), scale)
        x = op.tensor_ir_op(function, "embed", [step.ids, table], tensor("float32", step.ids.shape[0], table.inputs))
        if positions is None:
            return x
        count, width = (int(extent) for extent in positions.shape)
        function = self._kernel(rows.add_rows, count, width)
        return op.tensor_ir_op(function, "add_positions", [x, positions, step.positions], like(x))

    def add_normed(self, x: nn.Tensor, y: nn.Tensor, norm_: NormWeights) -> nn.Tensor:
        spec = norm_spec(int(x.shape[1]), norm_)
        function = self._kernel(norm.add_normed, spec, str(y.dtype), self._gpu.threads)
        return op.tensor_ir_op(function, "add_normed", [x, y, *norm_args(norm_)], like(x))

    def norm_heads(
        self, qkv: nn.Tensor, q_norm: nn.Tensor, k_norm: nn.Tensor, eps: float, *, centered: bool, by_head: bool
    ) -> nn.Tensor:
        spec = norm.HeadNorm(self._heads, int(qkv.shape[1]), by_head, eps, centered, str(qkv.dtype))
        function = self._kernel(norm.norm_heads, spec, self._gpu.threads)
        return op.tensor_ir_op(function, "norm_heads", [qkv, q_norm, k_norm], like(qkv))

    def rotate_append(
        self, qkv: nn.Tensor, table: nn.Tensor | None, step: Step, pages: Pages, *, query_scale: float | None = None
    ) -> tuple[nn.Tensor, Pages]:
        spec = self._append(int(qkv.shape[1]), str(qkv.dtype), table, query_scale)
        args = [qkv, *([] if table is None else [table]), step.slots, pages]
        q = tensor(str(qkv.dtype), qkv.shape[0], self._heads.queries * self._heads.dim)
        updated, q = op.tensor_ir_inplace_op(
            self._kernel(position.rotate_append, spec),
            "rotate_append",
            args,
            inplace_indices=[len(args) - 1, -1],
            out=[like(pages), q],
        )
        return q, updated

    def _append(
        self, row_width: int, dtype: str, table: nn.Tensor | None, query_scale: float | None
    ) -> position.Append:
        rotary_dim = 0 if table is None else 2 * int(table.shape[2])
        scale = self._heads.dim**-0.5 if query_scale is None else query_scale
        return position.Append(self._pages, row_width, rotary_dim, scale, dtype)

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
        product = self._linear(x, matrix, Epilogue(bias))
        append = self._append(product.ending.width, product.y, table, query_scale)
        spec = project.Projection(product, append)
        if table is None or spec.way(1) is None:
            qkv = self.linear(x, matrix, Epilogue(bias))
            return self.rotate_append(qkv, table, step, pages, query_scale=query_scale)
        args = [*x, matrix, *([] if bias is None else [bias]), table, step.slots, pages]
        n = x[0].shape[0]
        widths = self._heads.queries * self._heads.dim, product.ending.width
        out = [like(pages), *(tensor(product.y, n, width) for width in widths), *self._parts(product)]
        updated, q, *_ = op.tensor_ir_inplace_op(
            self._kernel(project.project_append, spec),
            "project_append",
            args,
            inplace_indices=[len(args) - 1, *(-1 for _ in out[1:])],
            out=out,
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
        return self._attend([q], step, pages, window, soft_cap, sinks)

    def _attend(
        self,
        queries: list[nn.Tensor],
        step: Step,
        pages: Pages,
        window: int = 0,
        soft_cap: float = 0.0,
        sinks: nn.Tensor | None = None,
    ) -> nn.Tensor:
        """Attention of queries that consist of these parts; y is like the first."""
        q = queries[0]
        decode = _same(q.shape[0], step.kv_len.shape[0])
        spec = attention.Attention(self._pages, self._gpu, str(q.dtype), window, soft_cap, sinks is not None, decode)
        slots = spec.slots(step.page_ids.shape[0], step.kv_len.shape[0])
        tables = [step.q_indptr, step.page_indptr, step.page_ids, step.kv_len]
        heads = self._heads
        y, _ = op.tensor_ir_op(
            self._kernel(attention.attention, spec),
            "attention",
            [*queries, pages, *tables, *([] if sinks is None else [sinks])],
            [like(q), tensor("float32", slots, heads.queries, heads.dim + 2)],
        )
        return y

    def take(self, x: nn.Tensor, rows_: nn.Tensor) -> nn.Tensor:
        width, dtype = int(x.shape[1]), str(x.dtype)
        function = self._kernel(rows.take, width, dtype)
        return op.tensor_ir_op(function, "take_rows", [x, rows_], tensor(dtype, rows_.shape[0], width))


def _same(a: object, b: object) -> bool:
    """Whether two extents are one symbolic variable."""
    return isinstance(a, tirx.Var) and isinstance(b, tirx.Var) and a.same_as(b)
