"""The network of a layer, behind its attention: dense, or a mixture of experts.

Both have one form: `network(x, norm, residual)` is the residual and what the network makes of x behind the norm.
"""

from __future__ import annotations

from dataclasses import replace

from tvm.relax.frontend import nn

from cupola.kernels.operations import Epilogue, Operations
from cupola.models.experts import Experts
from cupola.models.modules import Linear, NormLayer, Weights
from cupola.models.spec import DecoderSpec


class FeedForward(nn.Module):
    """The dense network: up, function, down."""

    def __init__(self, spec: DecoderSpec, ops: Operations, name: str, weights: Weights) -> None:
        self.function, self.gated, self.ops = spec.activation, spec.gated, ops
        self.up = Linear(ops, f"{name}.up", weights)
        self.down = Linear(ops, f"{name}.down", weights, spec.residual_scale)

    def forward(self, x: nn.Tensor, norm: NormLayer | None, residual: nn.Tensor | None) -> nn.Tensor:
        epilogue = Epilogue(self.up.bias, function=self.function, gated=self.gated)
        hidden = self.ops.linear(self.up.input(x, norm), self.up.weight, epilogue)
        return self.down(self.down.input(hidden, None), residual)


class Mixture(nn.Module):
    """Experts, of which every row uses a few, and a network that every row uses where there is one."""

    def __init__(self, spec: DecoderSpec, experts: Experts, ops: Operations, name: str, weights: Weights) -> None:
        self.experts, self.ops = experts, ops
        self.function, self.scale = spec.activation, spec.residual_scale
        self.router = Linear(ops, f"{name}.router", weights)
        self.selection_bias = weights.vector(f"{name}.selection_bias")
        self.up = Linear(ops, f"{name}.up", weights)
        self.down = Linear(ops, f"{name}.down", weights)
        # Behind a gate, the factor on what is added comes with the weights.
        shared_spec = replace(spec, residual_scale=1.0) if experts.routing.shared_gate else spec
        self.shared = FeedForward(shared_spec, ops, f"{name}.shared", weights) if experts.shared else None

    def forward(self, x: nn.Tensor, norm: NormLayer | None, residual: nn.Tensor | None) -> nn.Tensor:
        ops, gated = self.ops, self.experts.routing.shared_gate
        (seen,) = self.router.input(x, norm)  # floats, because the router's matrix is of floats
        routes = ops.route(self.router((seen,)), self.experts.routing, self.selection_bias)
        beside = None
        if self.shared is not None:
            beside = self.shared(seen, None, None if gated else residual)
        epilogue = Epilogue(self.up.bias, function=self.function, gated=True)
        hidden = ops.linear_experts(self.up.input(seen, None), self.up.weight, routes, epilogue, pairs=False)
        y = ops.linear_experts(
            self.down.input(hidden, None), self.down.weight, routes, Epilogue(self.down.bias), pairs=True
        )
        if beside is None or gated:
            return ops.combine_experts(y, routes, scale=self.scale, shared=beside, residual=residual)
        return ops.combine_experts(y, routes, scale=self.scale, residual=beside)


def network(spec: DecoderSpec, layer: int, ops: Operations, name: str, weights: Weights) -> FeedForward | Mixture:
    """The network of a layer."""
    experts = spec.experts_of(layer)
    return FeedForward(spec, ops, name, weights) if experts is None else Mixture(spec, experts, ops, name, weights)
