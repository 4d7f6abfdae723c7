"""The shared encoder: what every architecture of BERT's shape computes, in terms of the kernels' operations.

    x = norm(words[ids] + positions[positions] + types[types])
    for each layer:
        x = norm(x + linear(attention(linear(x))))
        x = norm(x + linear(f(linear(x))))
    embedding = pool(x)

It knows the names under which weights come and the order in which things happen; how anything is computed on a device
is behind `EncoderOperations`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tvm.relax.frontend import nn

from cupola.errors import ModelError
from cupola.kernels.encoder_operations import EncoderOperations, EncoderStep, Norm, Tables
from cupola.kernels.operations import Activation, Epilogue, Matrix
from cupola.models.encoder_spec import EncoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Role, Source

WORDS = "embeddings.word_embeddings.weight"
# The norms' parameters, and what the first checkpoints called them.
NORM_NAMES = (("weight", "bias"), ("gamma", "beta"))


def declare(spec: EncoderSpec, held: Collection[str]) -> Iterator[Parameter]:
    """Every parameter of the encoder with its checkpoint tensors, as plain floats.

    Args:
        held: the names of the checkpoint's tensors, which tell how it writes them.

    Raises:
        ModelError: it holds no encoder.
    """
    prefix = next((prefix for prefix in spec.prefixes if prefix + WORDS in held), None)
    if prefix is None:
        raise ModelError(f"the checkpoint has no tensor {WORDS}", hint="It may be of another architecture.")
    norm_names = NORM_NAMES[f"{prefix}embeddings.LayerNorm.weight" not in held]
    hidden, ffn = spec.hidden_size, spec.intermediate_size

    def parameter(name: str, role: Role, shape: tuple[int, ...], *sources: str) -> Parameter:
        return Parameter(name, role, tuple(Source(prefix + source, shape) for source in sources), Format.F32)

    def norm(name: str, source: str) -> Iterator[Parameter]:
        for ours, theirs in zip(("weight", "bias"), norm_names, strict=True):
            yield parameter(f"{name}.{ours}", Role.VECTOR, (hidden,), f"{source}.LayerNorm.{theirs}")

    def linear(name: str, outputs: int, inputs: int, *sources: str) -> Iterator[Parameter]:
        yield parameter(name, Role.LINEAR, (outputs, inputs), *(f"{source}.weight" for source in sources))
        yield parameter(f"{name}_bias", Role.VECTOR, (outputs,), *(f"{source}.bias" for source in sources))

    yield parameter("words", Role.TABLE, (spec.vocab_size, hidden), WORDS)
    yield parameter("positions", Role.VECTOR, (spec.max_positions, hidden), "embeddings.position_embeddings.weight")
    yield parameter("types", Role.VECTOR, (spec.type_vocab_size, hidden), "embeddings.token_type_embeddings.weight")
    yield from norm("norm", "embeddings")
    for i in range(spec.num_layers):
        name, source = f"layers.{i}", f"encoder.layer.{i}"
        attention = f"{source}.attention"
        yield from linear(f"{name}.qkv", hidden, hidden, *(f"{attention}.self.{p}" for p in ("query", "key", "value")))
        yield from linear(f"{name}.output", hidden, hidden, f"{attention}.output.dense")
        yield from norm(f"{name}.attention_norm", f"{attention}.output")
        yield from linear(f"{name}.up", ffn, hidden, f"{source}.intermediate.dense")
        yield from linear(f"{name}.down", hidden, ffn, f"{source}.output.dense")
        yield from norm(f"{name}.ffn_norm", f"{source}.output")


class Weights:
    """Declares an encoder's weight arguments on a device, by the names of their parameters."""

    def __init__(self, ops: EncoderOperations, parameters: Mapping[str, Parameter]) -> None:
        self._ops, self._parameters = ops, parameters

    def vector(self, name: str) -> nn.Parameter:
        return self._ops.vector(self._parameters[name].shape[0])

    def table(self, name: str) -> nn.Parameter:
        parameter = self._parameters[name]
        return self._ops.table(parameter.format, *parameter.shape)

    def matrix(self, name: str) -> Matrix:
        parameter = self._parameters[name]
        return self._ops.matrix(parameter.format, *parameter.shape)


class LayerNorm(nn.Module):
    """The parameters of a layer norm."""

    def __init__(self, weights: Weights, name: str, eps: float) -> None:
        self.weight, self.bias = weights.vector(f"{name}.weight"), weights.vector(f"{name}.bias")
        self.eps = eps

    def norm(self) -> Norm:
        return Norm(self.weight, self.bias, self.eps)


class EncoderLayer(nn.Module):
    """Attention and feed-forward network, each with a residual around it and a norm behind that."""

    def __init__(self, spec: EncoderSpec, ops: EncoderOperations, name: str, weights: Weights) -> None:
        self.ops, self.function = ops, spec.activation
        self.qkv, self.qkv_bias = weights.matrix(f"{name}.qkv"), weights.vector(f"{name}.qkv_bias")
        self.output, self.output_bias = weights.matrix(f"{name}.output"), weights.vector(f"{name}.output_bias")
        self.attention_norm = LayerNorm(weights, f"{name}.attention_norm", spec.norm_eps)
        self.up, self.up_bias = weights.matrix(f"{name}.up"), weights.vector(f"{name}.up_bias")
        self.down, self.down_bias = weights.matrix(f"{name}.down"), weights.vector(f"{name}.down_bias")
        self.ffn_norm = LayerNorm(weights, f"{name}.ffn_norm", spec.norm_eps)

    def forward(
        self, x: nn.Tensor, input_: Activation, step: EncoderStep, following: Matrix | None
    ) -> tuple[nn.Tensor, Activation]:
        """x, also as the input of `qkv`, becomes the layer's output, also as the input of the `following` product."""
        ops = self.ops
        attended = ops.attention(ops.linear(input_, self.qkv), self.qkv_bias, step)
        x = ops.linear(ops.activation(attended, self.output), self.output, Epilogue(residual=x))
        x, input_ = ops.norm(x, self.output_bias, self.attention_norm.norm(), self.up)
        hidden = ops.activated(ops.linear(input_, self.up), self.up_bias, self.function, self.down)
        x = ops.linear(hidden, self.down, Epilogue(residual=x))
        return ops.norm(x, self.down_bias, self.ffn_norm.norm(), following)


class Encoder(nn.Module):
    """The whole network: token ids in, a vector for each sequence out."""

    def __init__(
        self, spec: EncoderSpec, ops: EncoderOperations, parameters: Mapping[str, Parameter], how: str, normalize: bool
    ) -> None:
        self.spec, self.ops, self.how, self.normalize = spec, ops, how, normalize
        weights = Weights(ops, parameters)
        self.words, self.positions, self.types = (weights.table(name) for name in ("words", "positions", "types"))
        self.norm = LayerNorm(weights, "norm", spec.norm_eps)
        self.layers = nn.ModuleList([EncoderLayer(spec, ops, f"layers.{i}", weights) for i in range(spec.num_layers)])

    def run(self, step: EncoderStep) -> nn.Tensor:
        """float32 [b, hidden]."""
        ops, layers = self.ops, list(self.layers)
        x = ops.embed(step, Tables(self.words, self.positions, self.types, self.spec.first_position), self.norm.norm())
        input_ = ops.activation(x, layers[0].qkv)
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            x, input_ = layer(x, input_, step, None if following is None else following.qkv)
        return ops.pool(x, step, self.how, self.normalize)
