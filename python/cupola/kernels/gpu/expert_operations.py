"""The operations of mixtures of experts on a GPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.gpu import experts, routing
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.products import GpuProducts, tensor
from cupola.kernels.operations import PLAIN, Activation, Epilogue, Matrix, Routes
from cupola.kernels.routing import Routing


class GpuExperts(GpuProducts):
    """Implements `kernels.operations.ExpertOperations`. The order of `Routes` is (experts, order, begins)."""

    def route(self, scores: nn.Tensor, routing_: Routing, selection_bias: nn.Tensor | None = None) -> Routes:
        n, pairs = scores.shape[0], scores.shape[0] * routing_.used
        spec = routing.Route(routing_, int(scores.shape[1]), str(scores.dtype), selection_bias is not None)
        args = [scores] if selection_bias is None else [scores, selection_bias]
        out = [tensor("float32", n, routing_.used + routing_.shared_gate), tensor("int32", pairs)]
        weights, chosen = op.tensor_ir_op(self._kernel(routing.route, spec), "route", args, out)
        ordered = [tensor("int32", pairs), tensor("int32", routing_.count + 1)]
        sort = self._kernel(routing.sort_pairs, routing_.count)
        order, begins = op.tensor_ir_op(sort, "sort_pairs", [chosen], ordered)
        return Routes(routing_, weights, (chosen, order, begins))

    def linear_experts(
        self, x: Activation, matrix: Matrix, routes: Routes, epilogue: Epilogue = PLAIN, *, pairs: bool
    ) -> nn.Tensor:
        count, used = routes.routing.count, routes.routing.used
        outputs, dtype = matrix.rows // count, self._gpu.stored
        ending = Ending.of(epilogue, outputs, outputs // (2 if epilogue.gated else 1))
        spec = experts.Experts(self._packed(matrix), ending, count, used, pairs, str(x[0].dtype), dtype, self._gpu)
        args = [*x, *routes.order, matrix, *([] if epilogue.bias is None else [epilogue.bias])]
        out = tensor(dtype, routes.order[0].shape[0], ending.width)
        return op.tensor_ir_op(self._kernel(experts.linear_experts, spec), "experts", args, out)

    def combine_experts(
        self,
        y: nn.Tensor,
        routes: Routes,
        *,
        scale: float = 1.0,
        shared: nn.Tensor | None = None,
        residual: nn.Tensor | None = None,
    ) -> nn.Tensor:
        width, beside = int(y.shape[1]), None if shared is None else str(shared.dtype)
        spec = routing.Combine(width, routes.routing.used, str(y.dtype), beside, scale, residual is not None)
        args = [y, routes.weights, *(given for given in (shared, residual) if given is not None)]
        out = tensor("float32", routes.weights.shape[0], width)
        return op.tensor_ir_op(self._kernel(routing.combine, spec), "combine_experts", args, out)
