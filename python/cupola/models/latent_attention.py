"""Latent attention as a block of the shared decoder, in terms of the kernels' operations.

    c, k = linear(norm(x));  norm c, rotate k, append both to the pages
    q, r = linear(norm(x)), or linear(norm(linear(norm(x))));  rotate r
    x += linear(W_value attention((W_key q, r), pages))

`kernels/latent_operations.py` says why that is attention.
"""

from __future__ import annotations

from dataclasses import replace

from tvm.relax.frontend import nn

from cupola.kernels.latent_operations import LatentOperations
from cupola.kernels.operations import Matrix, Operations, Pages, Step
from cupola.models.latent import Latent
from cupola.models.modules import Linear, NormLayer, Tables, Weights
from cupola.models.spec import Attention, DecoderSpec, Norm


class HeadMatrices(nn.Module):
    """The matrices of all heads, one below the other."""

    def __init__(self, name: str, weights: Weights) -> None:
        self.weight: Matrix = weights.matrix(f"{name}.weight")


class LatentAttentionLayer(nn.Module):
    """Latents of keys, values and perhaps queries, and attention over pages of the former."""

    def __init__(
        self,
        spec: DecoderSpec,
        latent: Latent,
        attention: Attention,
        ops: Operations,
        name: str,
        weights: Weights,
    ) -> None:
        assert isinstance(ops, LatentOperations)
        self.latent_spec, self.attention, self.ops = latent, attention, ops
        self.latent = Linear(ops, f"{name}.latent", weights)
        self.latent_norm = _norm(spec, latent, f"{name}.latent_norm", weights)
        if latent.query_rank:
            self.query_latent = Linear(ops, f"{name}.query_latent", weights)
            self.query_norm = _norm(spec, latent, f"{name}.query_norm", weights)
        self.query = Linear(ops, f"{name}.query", weights)
        self.key, self.value = HeadMatrices(f"{name}.key", weights), HeadMatrices(f"{name}.value", weights)
        self.output = Linear(ops, f"{name}.output", weights, spec.residual_scale)

    def forward(self, x: nn.Tensor, norm: NormLayer | None, tables: Tables, step: Step, pages: Pages) -> nn.Tensor:
        """What every row saw behind the norm, before the product with `output`; new rows go to the pages."""
        ops, rotary = self.ops, self.attention.rotary
        assert rotary is not None
        assert self.attention.query_scale is not None
        rows = self.latent(self.latent.input(x, norm))
        pages = ops.append_latent(rows, self.latent_norm.weights, tables[rotary], step, pages)
        q, r = ops.split_queries(self._queries(x, norm), tables[rotary], self.attention.query_scale)
        attended = ops.attend_latent(ops.linear_by_head(q, self.key.weight), r, step, pages)
        return ops.linear_by_head(attended, self.value.weight)

    def _queries(self, x: nn.Tensor, norm: NormLayer | None) -> nn.Tensor:
        if not self.latent_spec.query_rank:
            return self.query(self.query.input(x, norm))
        latent = self.query_latent(self.query_latent.input(x, norm))
        return self.query(self.query.input(latent, self.query_norm))

    def project(self, attended: nn.Tensor, residual: nn.Tensor | None) -> nn.Tensor:
        """The product with `output`, added to the residual."""
        return self.output(self.output.input(attended, None), residual)


def _norm(spec: DecoderSpec, latent: Latent, name: str, weights: Weights) -> NormLayer:
    """The norm of a latent, which has an epsilon of its own."""
    weight = weights.vector(f"{name}.weight")
    assert weight is not None
    return NormLayer(replace(spec, norm=Norm(latent.eps)), weight, None)
