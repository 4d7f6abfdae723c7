"""The shared decoder: what every architecture of the Llama shape computes, in terms of the kernels' operations.

    x = embed(ids)
    for each layer:
        q, k, v = linear(norm(x));  rotate q and k, append k and v to the pages;  x += linear(attention(q, pages))
        x += linear(silu(linear(norm(x))) * linear(norm(x)))
    logits = linear(norm(x[out_rows]))

It knows the names under which weights come and the order in which things happen; how anything is computed on a device
is behind `Operations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tvm.relax.frontend import nn

from cupola.kernels.operations import Activation, Matrix, Operations, Pages, Step
from cupola.models.spec import DecoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Role, Source


def declare(spec: DecoderSpec) -> Iterator[Parameter]:
    """Every parameter of the decoder with its checkpoint tensors, under their Hugging Face names, as plain floats."""
    hidden, ffn = spec.hidden_size, spec.intermediate_size
    queries, keys = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim

    def matrix(name: str, role: Role, inputs: int, **rows: int) -> Parameter:
        sources = tuple(Source(f"{source}.weight", (n, inputs)) for source, n in rows.items())
        return Parameter(name, role, sources, Format.F32)

    def vector(name: str, source: str) -> Parameter:
        return Parameter(name, Role.VECTOR, (Source(f"{source}.weight", (hidden,)),), Format.F32)

    yield matrix("embedding", Role.EMBEDDING, hidden, **{"model.embed_tokens": spec.vocab_size})
    for i in range(spec.num_layers):
        name, source = f"layers.{i}", f"model.layers.{i}"
        attention, mlp = f"{source}.self_attn", f"{source}.mlp"
        yield vector(f"{name}.attention_norm", f"{source}.input_layernorm")
        qkv = {f"{attention}.q_proj": queries, f"{attention}.k_proj": keys, f"{attention}.v_proj": keys}
        yield matrix(f"{name}.qkv", Role.LINEAR, hidden, **qkv)
        yield matrix(f"{name}.output", Role.LINEAR, queries, **{f"{attention}.o_proj": hidden})
        yield vector(f"{name}.ffn_norm", f"{source}.post_attention_layernorm")
        yield matrix(f"{name}.gate_up", Role.LINEAR, hidden, **{f"{mlp}.gate_proj": ffn, f"{mlp}.up_proj": ffn})
        yield matrix(f"{name}.down", Role.LINEAR, ffn, **{f"{mlp}.down_proj": hidden})
    yield vector("norm", "model.norm")
    if not spec.tied:
        yield matrix("head", Role.EMBEDDING, hidden, lm_head=spec.vocab_size)


class Weights:
    """Declares a model's weight arguments on a device, by the names of their parameters."""

    def __init__(self, ops: Operations, parameters: Mapping[str, Parameter]) -> None:
        self._ops, self._parameters = ops, parameters

    def vector(self, name: str) -> nn.Parameter:
        return self._ops.vector(self._parameters[name].shape[0])

    def matrix(self, name: str) -> Matrix:
        parameter = self._parameters[name]
        rows, inputs = parameter.shape
        return self._ops.matrix(parameter.format, rows, inputs)


class Layer(nn.Module):
    """Attention and feed-forward network, each behind a norm and around a residual."""

    def __init__(self, spec: DecoderSpec, ops: Operations, name: str, weights: Weights) -> None:
        self.ops, self.eps = ops, spec.norm_eps
        self.attention_norm = weights.vector(f"{name}.attention_norm")
        self.qkv = weights.matrix(f"{name}.qkv")
        self.output = weights.matrix(f"{name}.output")
        self.ffn_norm = weights.vector(f"{name}.ffn_norm")
        self.gate_up = weights.matrix(f"{name}.gate_up")
        self.down = weights.matrix(f"{name}.down")

    def forward(
        self, x: nn.Tensor, table: nn.Tensor, step: Step, pages: Pages, wanted: nn.Tensor | None = None
    ) -> tuple[nn.Tensor, Pages]:
        """The layer's output and pages; with `wanted`, of these rows alone: the keys and values are those of all."""
        ops = self.ops
        qkv = ops.linear(self._normed(x, self.attention_norm, self.qkv), self.qkv)
        q, pages = ops.rotate_append(qkv, table, step, pages)
        attended = ops.attention(q, step, pages)
        if wanted is not None:
            x, attended = ops.take(x, wanted), ops.take(attended, wanted)
        x = ops.linear(ops.activation(attended, self.output), self.output, residual=x)
        hidden = ops.gated_linear(self._normed(x, self.ffn_norm, self.gate_up), self.gate_up)
        return ops.linear(ops.activation(hidden, self.down), self.down, residual=x), pages

    def _normed(self, x: nn.Tensor, weight: nn.Tensor, matrix: Matrix) -> Activation:
        return self.ops.normed_activation(x, weight, self.eps, matrix)


class Decoder(nn.Module):
    """The whole network: token ids in, logits of chosen rows out."""

    def __init__(self, spec: DecoderSpec, ops: Operations, parameters: Mapping[str, Parameter]) -> None:
        self.spec, self.ops = spec, ops
        weights = Weights(ops, parameters)
        self.embedding = weights.matrix("embedding")
        self.layers = nn.ModuleList([Layer(spec, ops, f"layers.{i}", weights) for i in range(spec.num_layers)])
        self.norm = weights.vector("norm")
        if not spec.tied:
            self.head = weights.matrix("head")

    def run(self, step: Step, kv: list[Pages]) -> nn.Tensor:
        """Logits float32 [m, vocabulary rounded up] of the rows `step.out_rows`; keys and values go to kv."""
        ops = self.ops
        x = ops.embed(step.ids, self.embedding)
        table = ops.rotary_table(step.positions, self.spec.rotary.frequencies, self.spec.rotary.magnitude)
        last = len(kv) - 1
        for i, (layer, pages) in enumerate(zip(self.layers, kv, strict=True)):
            x, _ = layer(x, table, step, pages, step.out_rows if i == last else None)
        head = self.embedding if self.spec.tied else self.head
        return ops.linear(ops.normed_activation(x, self.norm, self.spec.norm_eps, head), head)
