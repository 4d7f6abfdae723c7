"""An encoder's parameters: which there are, and of which tensors of a checkpoint they are made."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cupola.errors import ModelError
from cupola.models.encoder_spec import EncoderSpec, Head
from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Role, Source

# The parameters of norms, and what the first checkpoints called them.
_NORM_NAMES = (("weight", "bias"), ("gamma", "beta"))


def declare(spec: EncoderSpec, held: Collection[str]) -> Iterator[Parameter]:
    """Every parameter of the encoder with its checkpoint tensors, as plain floats.

    Args:
        held: the names of the checkpoint's tensors, which tell how it writes them.

    Raises:
        ModelError: it holds no encoder.
    """
    words = f"{spec.names.words}.weight"
    prefix = next((prefix for prefix in spec.names.prefixes if prefix + words in held), None)
    if prefix is None:
        raise ModelError(f"the checkpoint has no tensor {words}", hint="It may be of another architecture.")
    norm_names = _NORM_NAMES[f"{prefix}{spec.names.norm}.weight" not in held]
    return _Declaration(spec, prefix, norm_names).all()


class _Declaration:
    """The walk over one encoder's parameters."""

    def __init__(self, spec: EncoderSpec, prefix: str, norm_names: tuple[str, str]) -> None:
        self._spec, self._names, self._prefix, self._norm_names = spec, spec.names, prefix, norm_names

    def all(self) -> Iterator[Parameter]:
        spec, names, hidden = self._spec, self._names, self._spec.hidden_size
        yield self._table("words", Role.TABLE, names.words, spec.vocab_size, hidden)
        if spec.positions:
            yield self._table("positions", Role.VECTOR, names.positions, spec.positions, hidden)
        if spec.type_vocab_size:
            yield self._table("types", Role.VECTOR, names.types, spec.type_vocab_size, hidden)
        if spec.relative_buckets:
            yield self._table("relative", Role.VECTOR, names.relative, spec.relative_buckets, spec.num_heads)
        yield from self._norm("norm", self._prefix + names.norm)
        for i in range(spec.num_layers):
            yield from self._layer(i)
        if spec.pre_norm:
            yield from self._norm("final_norm", self._prefix + names.final_norm)
        if spec.head is not None:
            yield from self._head(spec.head)

    def _layer(self, i: int) -> Iterator[Parameter]:
        spec, names, biases = self._spec, self._names, self._spec.biases
        hidden, ffn = spec.hidden_size, spec.intermediate_size
        name, prefix = f"layers.{i}", self._prefix + names.layer.format(i)
        if not (spec.pre_norm and i == 0):
            yield from self._norm(f"{name}.attention_norm", prefix + names.attention_norm)
        rows = 3 * hidden // len(names.qkv)
        yield from self._linear(f"{name}.qkv", [(prefix + part, rows) for part in names.qkv], hidden, biases.qkv)
        yield from self._linear(f"{name}.output", [(prefix + names.output, hidden)], hidden, biases.output)
        yield from self._norm(f"{name}.ffn_norm", prefix + names.ffn_norm)
        rows = (2 if spec.gated else 1) * ffn // len(names.up)
        order = (*range(ffn, 2 * ffn), *range(ffn)) if names.up_before_gate else None
        yield from self._linear(f"{name}.up", [(prefix + part, rows) for part in names.up], hidden, biases.up, order)
        yield from self._linear(f"{name}.down", [(prefix + names.down, hidden)], ffn, biases.down)

    def _head(self, head: Head) -> Iterator[Parameter]:
        hidden, labels = self._spec.hidden_size, len(head.labels)
        dense, norm, projection = (name.format(self._prefix) for name in (head.dense, head.norm, head.projection))
        if dense:
            yield from self._linear("head.dense", [(dense, hidden)], hidden, head.dense_bias)
        if norm:
            yield from self._norm("head.norm", norm)
        for name, kind, shape in (("", "weight", (labels, hidden)), ("_bias", "bias", (labels,))):
            source = Source(f"{projection}.{kind}", shape)
            yield Parameter(f"head.projection{name}", Role.VECTOR, (source,), Format.F32)

    def _table(self, name: str, role: Role, tensor: str, rows: int, width: int) -> Parameter:
        return Parameter(name, role, (Source(f"{self._prefix}{tensor}.weight", (rows, width)),), Format.F32)

    def _norm(self, name: str, tensor: str) -> Iterator[Parameter]:
        kinds = zip(("weight", "bias"), self._norm_names, strict=True)
        for ours, theirs in list(kinds)[: 2 if self._spec.biases.norms else 1]:
            source = Source(f"{tensor}.{theirs}", (self._spec.hidden_size,))
            yield Parameter(f"{name}.{ours}", Role.VECTOR, (source,), Format.F32)

    @staticmethod
    def _linear(
        name: str, tensors: list[tuple[str, int]], inputs: int, bias: bool, order: tuple[int, ...] | None = None
    ) -> Iterator[Parameter]:
        weights = tuple(Source(f"{tensor}.weight", (rows, inputs), order) for tensor, rows in tensors)
        yield Parameter(name, Role.LINEAR, weights, Format.F32)
        if bias:
            biases = tuple(Source(f"{tensor}.bias", (rows,), order) for tensor, rows in tensors)
            yield Parameter(f"{name}_bias", Role.VECTOR, biases, Format.F32)
