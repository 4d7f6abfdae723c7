"""The shared encoder: what every architecture computes, in terms of the kernels' operations.

    x = norm(words[ids] + positions[positions] + types[types])
    for each layer:
        x = norm(x + linear(attention(linear(x))))
        x = norm(x + linear(f(linear(x))))
    embedding = pool(x)

That is BERT's; where others differ (`encoder_spec.EncoderSpec` says in what) there is one place below for each
difference. How anything is computed on a device is behind `EncoderOperations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from tvm.relax.frontend import nn

from cupola.kernels.encoder_operations import EncoderOperations, EncoderStep, Positions, Tables
from cupola.kernels.operations import Activation, Epilogue, Matrix, NormWeights
from cupola.models.encoder_spec import EncoderAttention, EncoderSpec, Head
from cupola.quantize.parameter import Parameter


@dataclass(frozen=True, slots=True)
class Pooling:
    """How the rows of a text become one vector.

    Args:
        how: mean, cls or last.
        normalized: to length 1.
    """

    how: str
    normalized: bool


class Weights:
    """Declares an encoder's weight arguments on a device, by the names of their parameters."""

    def __init__(self, spec: EncoderSpec, ops: EncoderOperations, parameters: Mapping[str, Parameter]) -> None:
        self.eps = spec.norm_eps
        self._ops, self._parameters = ops, parameters

    def vector(self, name: str) -> nn.Parameter | None:
        """None for a vector, or small table, that the model does not have."""
        parameter = self._parameters.get(name)
        return None if parameter is None else self._ops.vector(*parameter.shape)

    def needed(self, name: str) -> nn.Parameter:
        """A vector that every model has."""
        return self._ops.vector(*self._parameters[name].shape)

    def table(self, name: str) -> nn.Parameter:
        parameter = self._parameters[name]
        return self._ops.table(parameter.format, *parameter.shape)

    def matrix(self, name: str) -> Matrix:
        parameter = self._parameters[name]
        return self._ops.matrix(parameter.format, *parameter.shape)


class LayerNorm(nn.Module):
    """The weights of a layer norm."""

    def __init__(self, weights: Weights, name: str) -> None:
        self.weight, self.bias = weights.needed(f"{name}.weight"), weights.vector(f"{name}.bias")
        self.eps = weights.eps

    @property
    def weights(self) -> NormWeights:
        return NormWeights(self.weight, self.bias, self.eps, centered=True)


class EncoderLayer(nn.Module):
    """Attention and feed-forward network, each with a residual around it and a norm behind that."""

    def __init__(self, spec: EncoderSpec, ops: EncoderOperations, name: str, weights: Weights) -> None:
        self.ops, self.function, self.gated = ops, spec.activation, spec.gated
        self.qkv, self.qkv_bias = weights.matrix(f"{name}.qkv"), weights.vector(f"{name}.qkv_bias")
        self.output, self.output_bias = weights.matrix(f"{name}.output"), weights.vector(f"{name}.output_bias")
        self.up, self.up_bias = weights.matrix(f"{name}.up"), weights.vector(f"{name}.up_bias")
        self.down, self.down_bias = weights.matrix(f"{name}.down"), weights.vector(f"{name}.down_bias")
        self.ffn_norm = LayerNorm(weights, f"{name}.ffn_norm")
        self.attention_norm: LayerNorm | None = None
        if not (spec.pre_norm and name == "layers.0"):
            self.attention_norm = LayerNorm(weights, f"{name}.attention_norm")

    def forward(
        self, x: nn.Tensor, input_: Activation, step: EncoderStep, positions: Positions, following: Matrix | None
    ) -> tuple[nn.Tensor, Activation]:
        """x, also as the input of `qkv`, becomes the layer's output, also as the input of the `following` product."""
        ops = self.ops
        assert self.attention_norm is not None
        x = ops.linear(self.attended(input_, step, positions), self.output, Epilogue(residual=x))
        x, input_ = ops.norm(x, self.output_bias, self.attention_norm.weights, self.up)
        x = ops.linear(self.hidden(input_), self.down, Epilogue(residual=x))
        return ops.norm(x, self.down_bias, self.ffn_norm.weights, following)

    def before(self, x: nn.Tensor, step: EncoderStep, positions: Positions) -> nn.Tensor:
        """The same with the norms before attention and network."""
        ops = self.ops
        norm = None if self.attention_norm is None else self.attention_norm.weights
        attended = self.attended(ops.activation(x, self.qkv, norm), step, positions)
        x = ops.linear(attended, self.output, Epilogue(bias=self.output_bias, residual=x))
        hidden = self.hidden(ops.activation(x, self.up, self.ffn_norm.weights))
        return ops.linear(hidden, self.down, Epilogue(bias=self.down_bias, residual=x))

    def attended(self, input_: Activation, step: EncoderStep, positions: Positions) -> Activation:
        """What every row saw, as the input of `output`."""
        ops = self.ops
        seen = ops.attention(ops.linear(input_, self.qkv), self.qkv_bias, step, positions)
        return ops.activation(seen, self.output)

    def hidden(self, input_: Activation) -> Activation:
        """The inside of the network, as the input of `down`."""
        ops = self.ops
        if self.gated or self.up_bias is None:
            epilogue = Epilogue(bias=self.up_bias, function=self.function, gated=self.gated)
            return ops.activation(ops.linear(input_, self.up, epilogue), self.down)
        return ops.activated(ops.linear(input_, self.up), self.up_bias, self.function, self.down)


class Classifier(nn.Module):
    """From the rows of a text to a number for each label."""

    def __init__(self, head: Head, ops: EncoderOperations, weights: Weights) -> None:
        self.spec, self.ops = head, ops
        if head.dense:
            self.dense, self.dense_bias = weights.matrix("head.dense"), weights.vector("head.dense_bias")
        if head.norm:
            self.norm = LayerNorm(weights, "head.norm")
        self.projection, self.projection_bias = map(weights.needed, ("head.projection", "head.projection_bias"))

    def forward(self, x: nn.Tensor, step: EncoderStep) -> nn.Tensor:
        ops, head = self.ops, self.spec
        x = ops.pool(x, step, head.pooling, normalize=False)
        if head.dense:
            epilogue = Epilogue(bias=self.dense_bias, function=head.function)
            x = ops.linear(ops.activation(x, self.dense), self.dense, epilogue)
        if head.norm:
            x, _ = ops.norm(x, None, self.norm.weights, None)
        return ops.project(x, self.projection, self.projection_bias)


class Encoder(nn.Module):
    """The whole network: token ids in; for each sequence a vector out, or a number for each label."""

    def __init__(
        self, spec: EncoderSpec, ops: EncoderOperations, parameters: Mapping[str, Parameter], pooling: Pooling
    ) -> None:
        self.spec, self.ops, self.pooling = spec, ops, pooling
        weights = Weights(spec, ops, parameters)
        self.words = weights.table("words")
        self.positions, self.types, self.relative = map(weights.vector, ("positions", "types", "relative"))
        self.norm = LayerNorm(weights, "norm")
        self.layers = nn.ModuleList([EncoderLayer(spec, ops, f"layers.{i}", weights) for i in range(spec.num_layers)])
        self.final_norm = LayerNorm(weights, "final_norm") if spec.pre_norm else None
        self.head = None if spec.head is None else Classifier(spec.head, ops, weights)

    def run(self, step: EncoderStep) -> nn.Tensor:
        """float32 [b, hidden], or [b, labels]."""
        tables = Tables(self.words, self.positions, self.types, self.spec.first_position)
        x = self.ops.embed(step, tables, self.norm.weights)
        places = self._places(step)
        x = self._with_norms_before(x, step, places) if self.spec.pre_norm else self._with_norms_behind(x, step, places)
        if self.head is not None:
            return self.head(x, step)
        return self.ops.pool(x, step, self.pooling.how, self.pooling.normalized)

    def _with_norms_behind(self, x: nn.Tensor, step: EncoderStep, places: list[Positions]) -> nn.Tensor:
        layers = list(self.layers)
        input_ = self.ops.activation(x, layers[0].qkv)
        for layer, positions, following in zip(layers, places, [*layers[1:], None], strict=True):
            x, input_ = layer(x, input_, step, positions, None if following is None else following.qkv)
        return x

    def _with_norms_before(self, x: nn.Tensor, step: EncoderStep, places: list[Positions]) -> nn.Tensor:
        for layer, positions in zip(self.layers, places, strict=True):
            x = layer.before(x, step, positions)
        assert self.final_norm is not None
        return self.ops.norm(x, None, self.final_norm.weights, None)[0]

    def _places(self, step: EncoderStep) -> list[Positions]:
        """What each layer knows of positions; layers that turn alike share a table."""
        rotaries = dict.fromkeys(layer.rotary for layer in self.spec.layers if layer.rotary is not None)
        tables = {r: self.ops.rotary_table(step.positions, r.frequencies, r.magnitude) for r in rotaries}
        common = Positions(relative=self.relative, bucket_of=lambda d: buckets(d, self.spec.relative_buckets))

        def place(attention: EncoderAttention) -> Positions:
            table = None if attention.rotary is None else tables[attention.rotary]
            return replace(common, table=table, window=attention.window)

        return [place(attention) for attention in self.spec.layers]


def buckets(distances: np.ndarray, count: int, most: int = 128) -> np.ndarray:
    """T5's buckets (Raffel et al., 2019): half of them for each direction, first one a token, then wider and wider."""
    half = count // 2
    exact, n = half // 2, np.abs(distances)
    ratio = np.log(np.maximum(n, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(most / exact))
    wide = exact + (ratio * np.float32(half - exact)).astype(np.int64)
    return np.where(distances > 0, half, 0) + np.where(n < exact, n, np.minimum(wide, half - 1))
