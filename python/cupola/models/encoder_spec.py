"""The shape of an encoder: everything that distinguishes one checkpoint, and one family, from another.

Plain values. What they mean for the arithmetic is in `encoder.py`, what they mean for a checkpoint's tensors in
`encoder_parameters.py`; a family's own file says how they follow from its config.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cupola.errors import UnsupportedError
from cupola.manifest import Scores
from cupola.models.rotary import Rotary
from cupola.models.sizes import check_multiples


@dataclass(frozen=True)
class EncoderAttention:
    """The attention of one layer.

    Args:
        rotary: frequencies of the positions; None: nothing rotates.
        window: tokens that a row sees to each side of itself; 0: all of them.
    """

    rotary: Rotary | None = None
    window: int = 0


@dataclass(frozen=True)
class EncoderBiases:
    """Which products, and norms, add a vector."""

    qkv: bool = True
    output: bool = True
    up: bool = True
    down: bool = True
    norms: bool = True


@dataclass(frozen=True)
class Head:
    """What a classifier has behind the encoder: project(norm(function(dense(pooled row)))).

    Args:
        labels: what the numbers that it gives are called; a reranker has one.
        pooling: cls (the first row) or mean.
        scores: what makes scores of the numbers: sigmoid, softmax or none.
        projection: the last matrix's tensor; {} in these names stands for what the encoder's own begin with.
        dense, norm: the tensors before it; "": there is none.
        function: behind `dense`; a name of `kernels.operations.Epilogue`.
        dense_bias: `dense` adds a vector.
    """

    labels: tuple[str, ...]
    scores: Scores
    projection: str
    dense: str = ""
    norm: str = ""
    function: str = "tanh"
    dense_bias: bool = True
    pooling: Literal["cls", "mean"] = "cls"


@dataclass(frozen=True)
class EncoderNames:
    """Names of tensors, without `.weight` and `.bias`.

    Args:
        prefixes: what they may begin with; a checkpoint saved with a head has such a beginning.
        positions, types, relative, final_norm: "" for what the family does not have.
        layer: the beginning of the names in a layer; {} is its number.
        qkv: q, k and v; or the one tensor that holds the three.
        up: what the network multiplies first: gate and up; one tensor of both; or the one of an ungated network.
        up_before_gate: that one tensor holds the gate below.
        attention_norm, ffn_norm: behind attention and network, or before them.
    """

    prefixes: tuple[str, ...]
    words: str = "embeddings.word_embeddings"
    positions: str = "embeddings.position_embeddings"
    types: str = "embeddings.token_type_embeddings"
    norm: str = "embeddings.LayerNorm"
    relative: str = ""
    layer: str = "encoder.layer.{}."
    qkv: tuple[str, ...] = ("attention.self.query", "attention.self.key", "attention.self.value")
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: tuple[str, ...] = ("intermediate.dense",)
    up_before_gate: bool = False
    down: str = "output.dense"
    ffn_norm: str = "output.LayerNorm"
    final_norm: str = ""


@dataclass(frozen=True)
class EncoderSpec:
    """A transformer encoder.

    Args:
        vocab_size, hidden_size, intermediate_size, num_heads: as in config.json.
        layers: the attention of each layer.
        norm_eps: of every layer norm.
        activation: of the feed-forward network; a name of `kernels.operations.Epilogue`.
        max_context: tokens that the model can see.
        names: where the checkpoint keeps it all.
        positions: rows of the table of positions; 0: there is none.
        first_position: the row of position 0.
        type_vocab_size: token types; 0: there is no table of them.
        relative_buckets: rows of the table of what is added to scores by distance; 0: there is none (Raffel et al.,
            2019, whose buckets they are).
        pre_norm: norms stand before attention and network, the first one left out, and one at the end; else behind
            each residual.
        gated: the network multiplies function(gate) with a second projection.
        biases: which products add a vector.
        head: of a classifier; None: the model makes embeddings.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    layers: tuple[EncoderAttention, ...]
    norm_eps: float
    activation: str
    max_context: int
    names: EncoderNames
    positions: int = 0
    first_position: int = 0
    type_vocab_size: int = 0
    relative_buckets: int = 0
    pre_norm: bool = False
    gated: bool = False
    biases: EncoderBiases = field(default_factory=EncoderBiases)
    head: Head | None = None

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    def check(self) -> None:
        """Refuses sizes that the kernels cannot compute with.

        Raises:
            UnsupportedError: naming the size, what it is and what it must be.
        """
        if self.num_heads == 0 or self.hidden_size % self.num_heads:
            raise UnsupportedError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_heads}"
            )
        multiples = {
            "hidden_size": (self.hidden_size, 16),
            "intermediate_size": (self.intermediate_size, 16),
            "hidden_size / num_attention_heads": (self.head_dim, 8),
        }
        rotary_dims = {layer.rotary.dim for layer in self.layers if layer.rotary is not None}
        multiples |= {f"rotary dimension {dim}": (dim, 16) for dim in rotary_dims}
        check_multiples(multiples)
        if self.max_context < 1:
            raise UnsupportedError(f"max_position_embeddings is {self.positions}; no position is left for a token")
