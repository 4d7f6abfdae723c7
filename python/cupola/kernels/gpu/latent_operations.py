"""The operations of latent attention on a GPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.gpu import latent
from cupola.kernels.gpu.operations import GpuOperations
from cupola.kernels.gpu.pages import LatentPages
from cupola.kernels.gpu.products import like, norm_spec, tensor
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.latent_shape import LatentShape
from cupola.kernels.operations import Matrix, NormWeights, Pages, Step


class GpuLatentOperations(GpuOperations):
    """Implements `kernels.latent_operations.LatentOperations`; queries and what they see are of the device's type."""

    def __init__(self, gpu: Gpu, shape: LatentShape, pages: LatentPages) -> None:
        super().__init__(gpu, pages)
        self._shape, self._latents = shape, pages

    def append_latent(self, x: nn.Tensor, norm: NormWeights, table: nn.Tensor, step: Step, pages: Pages) -> Pages:
        spec = norm_spec(self._shape.latent, norm)
        function = self._kernel(
            latent.append_latent, self._latents, int(x.shape[1]), spec, str(x.dtype), self._gpu.threads
        )
        args = [x, norm.weight, table, step.slots, pages]
        return op.tensor_ir_inplace_op(function, "append_latent", args, inplace_indices=[4], out=like(pages))

    def split_queries(self, q: nn.Tensor, table: nn.Tensor, scale: float) -> tuple[nn.Tensor, nn.Tensor]:
        shape, n, dtype = self._shape, q.shape[0], str(q.dtype)
        function = self._kernel(latent.split_queries, shape, int(q.shape[1]), scale, dtype)
        out = [tensor(dtype, n, shape.heads * size) for size in (shape.plain, shape.rotary)]
        plain, rotated = op.tensor_ir_op(function, "split_queries", [q, table], out)
        return plain, rotated

    def linear_by_head(self, x: nn.Tensor, matrix: Matrix) -> nn.Tensor:
        spec = latent.ByHead(self._packed(matrix), self._shape.heads, str(x.dtype), self._gpu)
        out = tensor(str(x.dtype), x.shape[0], matrix.rows)
        return op.tensor_ir_op(self._kernel(latent.linear_by_head, spec), "linear_by_head", [x, matrix], out)

    def attend_latent(self, q: nn.Tensor, r: nn.Tensor, step: Step, pages: Pages) -> nn.Tensor:
        return self._attend([q, r], step, pages)
