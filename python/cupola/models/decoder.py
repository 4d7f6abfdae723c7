"""The shared decoder: what every architecture computes, in terms of the kernels' operations.

    x = embed(ids)
    for each layer:
        q, k, v = linear(norm(x));  rotate q and k, append k and v to the pages;  x += linear(attention(q, pages))
        x += linear(silu(linear(norm(x))) * linear(norm(x)))
    logits = linear(norm(x[out_rows]))

That is Llama's; where others differ (`spec.DecoderSpec` says in what) there is one place below for each difference. How
anything is computed on a device is behind `Operations`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tvm.relax.frontend import nn

from cupola.kernels.operations import Activation, Epilogue, Matrix, NormWeights, Operations, Pages, Step
from cupola.models.rotary import Rotary
from cupola.models.spec import Attention, DecoderSpec
from cupola.quantize.parameter import Parameter

Tables = Mapping[Rotary, nn.Tensor]  # cosines and sines of the step's positions


class Weights:
    """Declares a model's weight arguments on a device, by the names of their parameters."""

    def __init__(self, spec: DecoderSpec, ops: Operations, parameters: Mapping[str, Parameter]) -> None:
        self._spec, self._ops, self._parameters = spec, ops, parameters

    def vector(self, name: str) -> nn.Parameter | None:
        """None for a vector that the model does not have."""
        parameter = self._parameters.get(name)
        return None if parameter is None else self._ops.vector(*parameter.shape)

    def norm(self, name: str) -> NormLayer | None:
        """None for a norm that the model does not have."""
        weight = self.vector(f"{name}.weight")
        return None if weight is None else NormLayer(self._spec, weight, self.vector(f"{name}.bias"))

    def matrix(self, name: str) -> Matrix:
        parameter = self._parameters[name]
        rows, inputs = parameter.shape
        return self._ops.matrix(parameter.format, rows, inputs)


class NormLayer(nn.Module):
    """The weights of a norm."""

    def __init__(self, spec: DecoderSpec, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        self.eps, self.centered = spec.norm.eps, spec.norm.centered
        self.weight, self.bias = weight, bias

    @property
    def weights(self) -> NormWeights:
        return NormWeights(self.weight, self.bias, self.eps, self.centered)


class Linear(nn.Module):
    """A product with its bias; `scale` is a factor on what it gives."""

    def __init__(self, ops: Operations, name: str, weights: Weights, scale: float = 1.0) -> None:
        self.ops, self.scale = ops, scale
        self.weight, self.bias = weights.matrix(f"{name}.weight"), weights.vector(f"{name}.bias")

    def input(self, x: nn.Tensor, norm: NormLayer | None) -> Activation:
        """x, behind a norm if there is one, in the form in which the product wants it."""
        return self.ops.activation(x, self.weight, None if norm is None else norm.weights)

    def forward(self, x: Activation, residual: nn.Tensor | None = None) -> nn.Tensor:
        return self.ops.linear(x, self.weight, Epilogue(self.bias, scale=self.scale, residual=residual))


class AttentionLayer(nn.Module):
    """Projections, norms of heads, rotation, attention over pages."""

    def __init__(self, spec: DecoderSpec, attention: Attention, ops: Operations, name: str, weights: Weights) -> None:
        self.spec, self.attention, self.ops = spec, attention, ops
        self.qkv = Linear(ops, f"{name}.qkv", weights)
        self.output = Linear(ops, f"{name}.output", weights, spec.residual_scale)
        self.q_norm, self.k_norm = weights.vector(f"{name}.q_norm"), weights.vector(f"{name}.k_norm")
        self.sinks = weights.vector(f"{name}.sinks")

    def forward(self, x: Activation, tables: Tables, step: Step, pages: Pages) -> nn.Tensor:
        """What every row saw, before the product with `output`; keys and values go to the pages."""
        ops, attention = self.ops, self.attention
        qkv = self.qkv(x)
        if self.q_norm is not None and self.k_norm is not None:
            qkv = ops.norm_heads(qkv, self.q_norm, self.k_norm, self.spec.norm.eps, self.spec.norm.centered)
        table = None if attention.rotary is None else tables[attention.rotary]
        q, pages = ops.rotate_append(qkv, table, step, pages, query_scale=attention.query_scale)
        return ops.attention(q, step, pages, window=attention.window, soft_cap=attention.soft_cap, sinks=self.sinks)

    def project(self, attended: nn.Tensor, residual: nn.Tensor | None) -> nn.Tensor:
        """The product with `output`, added to the residual."""
        return self.output(self.output.input(attended, None), residual)


class FeedForward(nn.Module):
    """The network: up, function, down."""

    def __init__(self, spec: DecoderSpec, ops: Operations, name: str, weights: Weights) -> None:
        self.function, self.gated, self.ops = spec.activation, spec.gated, ops
        self.up = Linear(ops, f"{name}.up", weights)
        self.down = Linear(ops, f"{name}.down", weights, spec.residual_scale)

    def forward(self, x: Activation, residual: nn.Tensor | None) -> nn.Tensor:
        epilogue = Epilogue(self.up.bias, function=self.function, gated=self.gated)
        hidden = self.ops.linear(x, self.up.weight, epilogue)
        return self.down(self.down.input(hidden, None), residual)


class Layer(nn.Module):
    """Attention and network with the norms and residuals around them."""

    def __init__(self, spec: DecoderSpec, attention: Attention, ops: Operations, name: str, weights: Weights) -> None:
        self.parallel, self.ops = spec.parallel, ops
        self.attention = AttentionLayer(spec, attention, ops, f"{name}.attention", weights)
        self.ffn = FeedForward(spec, ops, f"{name}.ffn", weights)
        self.attention_norm = weights.norm(f"{name}.attention_norm")
        self.ffn_norm = weights.norm(f"{name}.ffn_norm")
        self.attention_post_norm = weights.norm(f"{name}.attention_post_norm")
        self.ffn_post_norm = weights.norm(f"{name}.ffn_post_norm")

    def forward(
        self, x: nn.Tensor, tables: Tables, step: Step, pages: Pages, wanted: nn.Tensor | None = None
    ) -> nn.Tensor:
        """The layer's output; with `wanted`, of these rows alone, while the keys and values are those of all."""
        attended = self.attention(self.attention.qkv.input(x, self.attention_norm), tables, step, pages)
        if wanted is not None:
            x, attended = self.ops.take(x, wanted), self.ops.take(attended, wanted)
        if self.parallel:
            seen = self.ffn.up.input(x, self.ffn_norm or self.attention_norm)
            return self.ffn(seen, self.attention.project(attended, x))
        if self.attention_post_norm is not None and self.ffn_post_norm is not None:
            x = self.ops.add_normed(x, self.attention.project(attended, None), self.attention_post_norm.weights)
            return self.ops.add_normed(
                x, self.ffn(self.ffn.up.input(x, self.ffn_norm), None), self.ffn_post_norm.weights
            )
        x = self.attention.project(attended, x)
        return self.ffn(self.ffn.up.input(x, self.ffn_norm), x)


class TokenTable(nn.Module):
    """The embeddings, which may be the output matrix too."""

    def __init__(self, weights: Weights) -> None:
        self.weight = weights.matrix("embedding.weight")


class Decoder(nn.Module):
    """The whole network: token ids in, logits of chosen rows out."""

    def __init__(self, spec: DecoderSpec, ops: Operations, parameters: Mapping[str, Parameter]) -> None:
        self.spec, self.ops = spec, ops
        weights = Weights(spec, ops, parameters)
        self.embedding = TokenTable(weights)
        self.positions = weights.vector("positions")
        self.layers = nn.ModuleList(
            [Layer(spec, attention, ops, f"layers.{i}", weights) for i, attention in enumerate(spec.layers)]
        )
        self.norm = weights.norm("norm")
        if not spec.tied:
            self.head = Linear(ops, "head", weights)

    def run(self, step: Step, kv: list[Pages]) -> nn.Tensor:
        """Logits float32 [m, vocabulary rounded up] of the rows `step.out_rows`; keys and values go to kv."""
        ops, spec = self.ops, self.spec
        x = ops.embed(step, self.embedding.weight, self.positions, spec.embedding_scale)
        rotaries = dict.fromkeys(layer.rotary for layer in spec.layers if layer.rotary is not None)
        tables = {rotary: ops.rotary_table(step.positions, rotary.frequencies, rotary.magnitude) for rotary in rotaries}
        last = len(kv) - 1
        for i, (layer, pages) in enumerate(zip(self.layers, kv, strict=True)):
            x = layer(x, tables, step, pages, step.out_rows if i == last else None)
        head, bias = (self.embedding.weight, None) if spec.tied else (self.head.weight, self.head.bias)
        epilogue = Epilogue(bias, scale=spec.logit_scale, cap=spec.logit_cap)
        return ops.linear(ops.activation(x, head, None if self.norm is None else self.norm.weights), head, epilogue)
