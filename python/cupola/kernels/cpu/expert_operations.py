"""The operations of mixtures of experts on a CPU: each is one call of a kernel of this folder."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from cupola.kernels.cpu import experts, routing
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.kernels.cpu.products import CpuProducts, f32_tensor
from cupola.kernels.operations import PLAIN, Activation, Epilogue, Matrix, Routes
from cupola.kernels.routing import Routing


class CpuExperts(CpuProducts):
    """Implements `kernels.operations.ExpertOperations`. The order of `Routes` is (order, begins, busy)."""

    def route(self, scores: nn.Tensor, routing_: Routing, selection_bias: nn.Tensor | None = None) -> Routes:
        n, stride = scores.shape
        spec = routing.RouteSpec(routing_, int(stride), selection_bias is not None)
        args = [scores] if selection_bias is None else [scores, selection_bias]
        out = [f32_tensor(n, spec.weights), _ints(n, routing_.used), _ints(n * routing_.used)]
        out += [_ints(routing_.count + 1), _ints(routing_.count + 1)]
        weights, _, *order = op.tensor_ir_op(self._kernel(routing.route, spec), "route", args, out)
        return Routes(routing_, weights, tuple(order))

    def linear_experts(
        self, x: Activation, matrix: Matrix, routes: Routes, epilogue: Epilogue = PLAIN, *, pairs: bool
    ) -> nn.Tensor:
        count, used = routes.routing.count, routes.routing.used
        each = LinearSpec(
            matrix.format,
            matrix.inputs,
            matrix.rows // count,
            gated=epilogue.gated,
            bias=epilogue.bias is not None,
            function=epilogue.function,
        )
        spec = experts.ExpertsSpec(each, count, used, pairs)
        args = [*x, *routes.order, matrix, *([] if epilogue.bias is None else [epilogue.bias])]
        rows = routes.order[0].shape[0]
        return op.tensor_ir_op(
            self._kernel(experts.linear_experts, spec, self._isa), "experts", args, f32_tensor(rows, each.width)
        )

    def combine_experts(
        self,
        y: nn.Tensor,
        routes: Routes,
        *,
        scale: float = 1.0,
        shared: nn.Tensor | None = None,
        residual: nn.Tensor | None = None,
    ) -> nn.Tensor:
        width = int(y.shape[1])
        spec = experts.CombineSpec(width, routes.routing.used, shared is not None, scale, residual is not None)
        args = [y, routes.weights, *(tensor for tensor in (shared, residual) if tensor is not None)]
        return op.tensor_ir_op(
            self._kernel(experts.combine, spec), "combine_experts", args, f32_tensor(routes.weights.shape[0], width)
        )


def _ints(*shape: object) -> nn.Tensor:
    """An int32 result of this shape."""
    return nn.Tensor.placeholder(list(shape), "int32")
