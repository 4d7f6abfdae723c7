"""The shared decoder: what every architecture computes, in terms of the kernels' operations.

    x = embed(ids)
    for each layer:
        q, k, v = linear(norm(x));  rotate q and k, append k and v to the pages;  x += linear(attention(q, pages))
                                                                      # or of latents (`latent_attention.py`)
        x += linear(silu(linear(norm(x))) * linear(norm(x)))          # or of a few experts (`network.py`)
    logits = linear(norm(x[out_rows]))

That is Llama's; where others differ (`spec.DecoderSpec` says in what) there is one place below for each difference. How
anything is computed on a device is behind `Operations`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tvm.relax.frontend import nn

from cupola.kernels.operations import Epilogue, Operations, Pages, Step
from cupola.models.latent_attention import LatentAttentionLayer
from cupola.models.modules import Linear, NormLayer, Tables, Weights
from cupola.models.network import network
from cupola.models.spec import Attention, DecoderSpec
from cupola.quantize.parameter import Parameter


class AttentionLayer(nn.Module):
    """Projections, norms of heads, rotation, attention over pages."""

    def __init__(self, spec: DecoderSpec, attention: Attention, ops: Operations, name: str, weights: Weights) -> None:
        self.spec, self.attention, self.ops = spec, attention, ops
        self.qkv = Linear(ops, f"{name}.qkv", weights)
        self.output = Linear(ops, f"{name}.output", weights, spec.residual_scale)
        self.q_norm, self.k_norm = weights.vector(f"{name}.q_norm"), weights.vector(f"{name}.k_norm")
        self.sinks = weights.vector(f"{name}.sinks")

    def forward(self, x: nn.Tensor, norm: NormLayer | None, tables: Tables, step: Step, pages: Pages) -> nn.Tensor:
        """What every row saw behind the norm, before the product with `output`; keys and values go to the pages."""
        ops, attention = self.ops, self.attention
        seen = self.qkv.input(x, norm)
        table, scale = None if attention.rotary is None else tables[attention.rotary], attention.query_scale
        if self.q_norm is not None and self.k_norm is not None:
            kind, by_head, qkv = self.spec.norm, attention.qk_norm != "row", self.qkv(seen)
            qkv = ops.norm_heads(qkv, self.q_norm, self.k_norm, kind.eps, centered=kind.centered, by_head=by_head)
            q, pages = ops.rotate_append(qkv, table, step, pages, query_scale=scale)
        else:
            matrix, bias = self.qkv.weight, self.qkv.bias
            q, pages = ops.project_append(seen, matrix, bias, table, step, pages, query_scale=scale)
        return ops.attention(q, step, pages, window=attention.window, soft_cap=attention.soft_cap, sinks=self.sinks)

    def project(self, attended: nn.Tensor, residual: nn.Tensor | None) -> nn.Tensor:
        """The product with `output`, added to the residual."""
        return self.output(self.output.input(attended, None), residual)


def attention(
    spec: DecoderSpec, layer: int, ops: Operations, name: str, weights: Weights
) -> AttentionLayer | LatentAttentionLayer:
    """The attention of a layer."""
    if spec.latent is not None:
        return LatentAttentionLayer(spec, spec.latent, spec.layers[layer], ops, name, weights)
    return AttentionLayer(spec, spec.layers[layer], ops, name, weights)


class Layer(nn.Module):
    """Attention and network with the norms and residuals around them."""

    def __init__(self, spec: DecoderSpec, layer: int, ops: Operations, weights: Weights) -> None:
        name = f"layers.{layer}"
        self.parallel, self.ops = spec.parallel, ops
        self.attention = attention(spec, layer, ops, f"{name}.attention", weights)
        self.ffn = network(spec, layer, ops, f"{name}.ffn", weights)
        self.attention_norm = weights.norm(f"{name}.attention_norm")
        self.ffn_norm = weights.norm(f"{name}.ffn_norm")
        self.attention_post_norm = weights.norm(f"{name}.attention_post_norm")
        self.ffn_post_norm = weights.norm(f"{name}.ffn_post_norm")

    def forward(
        self, x: nn.Tensor, tables: Tables, step: Step, pages: Pages, wanted: nn.Tensor | None = None
    ) -> nn.Tensor:
        """The layer's output; with `wanted`, of these rows alone, while the keys and values are those of all."""
        attended = self.attention(x, self.attention_norm, tables, step, pages)
        if wanted is not None:
            x, attended = self.ops.take(x, wanted), self.ops.take(attended, wanted)
        if self.parallel:
            return self.ffn(x, self.ffn_norm or self.attention_norm, self.attention.project(attended, x))
        if self.attention_post_norm is not None and self.ffn_post_norm is not None:
            x = self.ops.add_normed(x, self.attention.project(attended, None), self.attention_post_norm.weights)
            return self.ops.add_normed(x, self.ffn(x, self.ffn_norm, None), self.ffn_post_norm.weights)
        x = self.attention.project(attended, x)
        return self.ffn(x, self.ffn_norm, x)


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
        self.layers = nn.ModuleList([Layer(spec, i, ops, weights) for i in range(spec.num_layers)])
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
            seen = step.for_window() if spec.layers[i].window else step
            x = layer(x, tables, seen, pages, step.out_rows if i == last else None)
        head, bias = (self.embedding.weight, None) if spec.tied else (self.head.weight, self.head.bias)
        epilogue = Epilogue(bias, scale=spec.logit_scale, cap=spec.logit_cap, wide=True)
        return ops.linear(ops.activation(x, head, None if self.norm is None else self.norm.weights), head, epilogue)
