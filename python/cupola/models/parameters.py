"""A decoder's parameters: which there are, and of which tensors of a checkpoint they are made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

from cupola.models import latent
from cupola.models.expert_parameters import Has, declare_experts
from cupola.models.names import Heads, RowOrder, head_order, qkv_orders
from cupola.models.spec import Attention, DecoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Role, Source

Tensors = Sequence[tuple[str, int, RowOrder]]  # name without its suffix, rows, and which of them are taken


def declare(spec: DecoderSpec, held: Collection[str]) -> Iterator[Parameter]:
    """Every parameter of the decoder with its checkpoint tensors, under their Hugging Face names, as plain floats.

    Args:
        held: the names of the checkpoint's tensors; `_SPELLINGS` says what may differ about them.
    """
    first, _, _ = spec.names.embedding.partition(".")
    spellings = [partial(spelling, f"{first}.") for spelling in _SPELLINGS]
    spelled = next((s for s in spellings if s(f"{spec.names.embedding}.weight") in held), spellings[0])

    def has(name: str) -> bool:
        return spelled(name) in held

    for parameter in _Declaration(spec, has).all():
        sources = (replace(source, name=spelled(source.name)) for source in parameter.sources)
        yield replace(parameter, sources=tuple(sources))


# How the names of a checkpoint may differ from a family's, whose first part is `first`.
_SPELLINGS: tuple[Callable[[str, str], str], ...] = (
    lambda first, name: name,  # noqa: ARG005
    lambda first, name: name.removeprefix(first),  # saved without its head
    lambda first, name: f"language_model.{name}",  # noqa: ARG005 (the text part of a model that sees)
    lambda first, name: f"{first}language_model.{name.removeprefix(first)}" if name.startswith(first) else name,
)


class _Declaration:
    """The walk over one decoder's parameters."""

    def __init__(self, spec: DecoderSpec, has: Has) -> None:
        self._spec, self._names, self._has = spec, spec.names, has

    def all(self) -> Iterator[Parameter]:
        spec, names = self._spec, self._names
        yield self._matrix("embedding", [(names.embedding, spec.vocab_size, None)], spec.hidden_size, Role.EMBEDDING)
        if spec.positions:
            shape = (spec.positions, spec.hidden_size)
            yield Parameter("positions", Role.VECTOR, (Source(f"{names.positions}.weight", shape),), Format.F32)
        for i in range(spec.num_layers):
            yield from self._layer(i)
        yield from self._norm("norm", names.norm)
        if not spec.tied:
            head = [(names.head, spec.vocab_size, None)]
            yield self._matrix("head", head, spec.hidden_size, Role.EMBEDDING)
            if spec.biases.head:
                yield self._bias("head", head)

    def _layer(self, i: int) -> Iterator[Parameter]:
        spec, names = self._spec, self._names
        name, prefix = f"layers.{i}", names.layer.format(i)
        if spec.has_attention_norm:
            yield from self._norm(f"{name}.attention_norm", prefix + names.attention_norm)
        if spec.has_ffn_norm:
            yield from self._norm(f"{name}.ffn_norm", prefix + names.ffn_norm)
        if spec.norms_after:
            yield from self._norm(f"{name}.attention_post_norm", prefix + names.attention_post_norm)
            yield from self._norm(f"{name}.ffn_post_norm", prefix + names.ffn_post_norm)
        yield from self._attention(i, f"{name}.attention", prefix)
        experts = spec.experts_of(i)
        if experts is not None:
            yield from declare_experts(experts, spec.hidden_size, f"{name}.ffn", prefix, self._has)
        else:
            yield from self._network(f"{name}.ffn", prefix)

    def _network(self, name: str, prefix: str) -> Iterator[Parameter]:
        spec, names, hidden, ffn = self._spec, self._names, self._spec.hidden_size, self._spec.intermediate_size
        halves = [
            (prefix + part, ffn * (3 - len(names.gate_up)) if spec.gated else ffn, None) for part in names.gate_up
        ]
        yield from self._linear(f"{name}.up", halves, hidden, spec.biases.ffn)
        yield from self._linear(f"{name}.down", [(prefix + names.down, hidden, None)], ffn, spec.biases.ffn)

    def _attention(self, i: int, name: str, prefix: str) -> Iterator[Parameter]:
        spec, names, attention = self._spec, self._names, self._spec.layers[i]
        if self._has(f"{prefix}{names.fused_qkv}.weight"):
            names = replace(names, qkv=(names.fused_qkv,))
        if spec.latent is not None:
            yield from latent.declare(spec.latent, spec.hidden_size, name, f"{prefix}self_attn.", self._has)
            return
        queries, keys = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
        rotary_dim = attention.rotary.dim if attention.rotary is not None else 0
        orders = qkv_orders(names, Heads(spec.num_heads, spec.num_kv_heads, spec.head_dim, rotary_dim))
        sizes = (queries, keys, keys) if len(names.qkv) == 3 else (queries + 2 * keys,)
        tensors = [(prefix + part, size, order) for part, size, order in zip(names.qkv, sizes, orders, strict=True)]
        yield from self._linear(f"{name}.qkv", tensors, spec.hidden_size, spec.biases.qkv)
        if attention.qk_norm != "none":
            for which, heads in (("q_norm", spec.num_heads), ("k_norm", spec.num_kv_heads)):
                tensor = prefix + (names.q_norm if which == "q_norm" else names.k_norm)
                sources = self._head_norms(attention, tensor, heads)
                yield Parameter(f"{name}.{which}", Role.VECTOR, tuple(sources), Format.F32)
        if attention.sinks:
            yield self._vector(f"{name}.sinks", prefix + names.sinks, spec.num_heads)
        output = [(prefix + names.output, spec.hidden_size, None)]
        yield from self._linear(f"{name}.output", output, queries, spec.biases.output)

    def _head_norms(self, attention: Attention, tensor: str, heads: int) -> list[Source]:
        """The weights of all heads; each head's own are rows of one tensor, or a tensor each."""
        spec, dim = self._spec, self._spec.head_dim
        offset = spec.norm.offset
        order = head_order(spec.names, dim, attention.rotary.dim if attention.rotary is not None else 0)
        if attention.qk_norm == "row":
            whole = order and tuple(head * dim + row for head in range(heads) for row in order)
            return [Source(f"{tensor}.weight", (heads * dim,), whole, offset=offset)]
        if attention.qk_norm == "head":
            return [Source(f"{tensor}.weight", (dim,), order, offset=offset)] * heads
        if self._has(f"{tensor}.weight"):
            stack = (heads, dim)
            return [Source(f"{tensor}.weight", stack, order, offset=offset, index=head) for head in range(heads)]
        return [Source(f"{tensor}.norms.{head}.weight", (dim,), order, offset=offset) for head in range(heads)]

    def _linear(self, name: str, tensors: Tensors, inputs: int, bias: bool) -> Iterator[Parameter]:
        yield self._matrix(name, tensors, inputs, Role.LINEAR)
        if bias:
            yield self._bias(name, tensors)

    def _matrix(self, name: str, tensors: Tensors, inputs: int, role: Role) -> Parameter:
        transposed = self._names.transposed and role is Role.LINEAR
        sources = (
            Source(f"{tensor}.weight", (inputs, rows) if transposed else (rows, inputs), order, transposed)
            for tensor, rows, order in tensors
        )
        return Parameter(f"{name}.weight", role, tuple(sources), Format.F32)

    def _bias(self, name: str, tensors: Tensors) -> Parameter:
        sources = tuple(Source(f"{tensor}.bias", (rows,), order) for tensor, rows, order in tensors)
        return Parameter(f"{name}.bias", Role.VECTOR, sources, Format.F32)

    def _norm(self, name: str, tensor: str) -> Iterator[Parameter]:
        width, norm = self._spec.hidden_size, self._spec.norm
        yield self._vector(f"{name}.weight", f"{tensor}.weight", width, norm.offset)
        if norm.bias:
            yield self._vector(f"{name}.bias", f"{tensor}.bias", width)

    @staticmethod
    def _vector(name: str, tensor: str, width: int, offset: float = 0.0) -> Parameter:
        return Parameter(name, Role.VECTOR, (Source(tensor, (width,), offset=offset),), Format.F32)
