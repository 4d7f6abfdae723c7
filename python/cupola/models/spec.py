"""The shape of a decoder: everything that distinguishes one checkpoint, and one family, from another.

Plain values. What they mean for the arithmetic is in `decoder.py`, what they mean for a checkpoint's tensors in
`names.py`; a family's own file says how they follow from its config.json.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from cupola.errors import UnsupportedError
from cupola.manifest import Task
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderSpec
from cupola.models.experts import Experts
from cupola.models.latent import Latent
from cupola.models.names import Names
from cupola.models.rotary import Rotary
from cupola.models.sizes import check_multiples

Function = Literal["silu", "gelu", "gelu_tanh", "relu", "swiglu_clamped"]
QkNorm = Literal["none", "head", "heads", "row"]
Placement = Literal["before", "after", "around", "parallel", "parallel_shared"]


@dataclass(frozen=True)
class Attention:
    """The attention of one layer.

    Args:
        rotary: frequencies of the positions; None: the layer knows no positions (NoPE, Kazemnejad et al., 2023).
        window: tokens that a row sees, itself the last of them; 0: all before it.
        soft_cap: scores become soft_cap * tanh(score / soft_cap); 0: they stay (Gemma 2, 2024).
        sinks: every head has a logit that takes part in the softmax and has no value (gpt-oss, 2025).
        query_scale: the factor on queries; None: 1 / sqrt(head size).
        qk_norm: how q and k are normed before they rotate: each head by itself with the weights of all, or with its
            own; or all heads of a row together.
    """

    rotary: Rotary | None
    window: int = 0
    soft_cap: float = 0.0
    sinks: bool = False
    query_scale: float | None = None
    qk_norm: QkNorm = "none"


@dataclass(frozen=True)
class Norm:
    """A norm: RMSNorm, or LayerNorm where it is `centered`.

    Args:
        bias: it adds a vector.
        offset: what the checkpoint leaves out of its weights (Gemma writes the difference from one).
    """

    eps: float
    centered: bool = False
    bias: bool = False
    offset: float = 0.0


@dataclass(frozen=True)
class Biases:
    """Which products add a vector."""

    qkv: bool = False
    output: bool = False
    ffn: bool = False
    head: bool = False


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder-only transformer.

    Args:
        vocab_size, hidden_size, intermediate_size: as in config.json.
        num_heads, num_kv_heads, head_dim: attention heads; query heads share key-value heads evenly.
        layers: the attention of each layer.
        norm: every norm of the residual stream.
        max_context: tokens that the model was trained to see.
        tied: the output matrix is the token table.
        placement: where a layer's norms stand: before attention and network, after them, around them; or before both
            at once, which then read the same stream, through a norm each or through one norm.
        activation: the network's function.
        gated: the network multiplies function(gate) with a second projection.
        biases: which products add a vector.
        embedding_scale: factor on token embeddings.
        residual_scale: factor on what a layer adds to the stream.
        logit_scale: factor on logits.
        logit_cap: logits become logit_cap * tanh(logit / logit_cap); 0: they stay.
        positions: rows of a table of learned positions; 0: there is none.
        experts: of each layer; None: its network is dense. Empty: all are dense.
        latent: keys and values are products of a latent, which pages hold; `num_kv_heads` is 1 then, `head_dim` the
            size of a query, and each layer's `Attention` has a rotary and a query scale and nothing else.
        names: where the checkpoint keeps it all.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[Attention, ...]
    norm: Norm
    max_context: int
    tied: bool
    placement: Placement = "before"
    activation: Function = "silu"
    gated: bool = True
    biases: Biases = field(default_factory=Biases)
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float = 0.0
    positions: int = 0
    experts: tuple[Experts | None, ...] = ()
    latent: Latent | None = None
    names: Names = field(default_factory=Names)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def experts_of(self, layer: int) -> Experts | None:
        """The experts of a layer; None: its network is dense."""
        return self.experts[layer] if self.experts else None

    @property
    def window(self) -> int:
        """Tokens that the layers with a window see; 0: every layer sees everything."""
        return max((layer.window for layer in self.layers), default=0)

    @property
    def parallel(self) -> bool:
        """Attention and network read the same stream."""
        return self.placement in ("parallel", "parallel_shared")

    @property
    def norms_after(self) -> bool:
        """What attention and network give goes through a norm before it is added."""
        return self.placement in ("after", "around")

    @property
    def has_attention_norm(self) -> bool:
        return self.placement != "after"

    @property
    def has_ffn_norm(self) -> bool:
        return self.placement in ("before", "around", "parallel")

    def check(self) -> None:
        """Refuses sizes that the kernels cannot compute with.

        Raises:
            UnsupportedError: naming the size, what it is and what it must be.
        """
        if self.num_kv_heads == 0 or self.num_heads % self.num_kv_heads:
            raise UnsupportedError(
                f"num_attention_heads {self.num_heads} is not a multiple of num_key_value_heads {self.num_kv_heads}"
            )
        multiples = {
            "hidden_size": (self.hidden_size, 16),
            "intermediate_size": (self.intermediate_size, 16),
            "head_dim": (self.head_dim, 16),
        }
        rotary_dims = {layer.rotary.dim for layer in self.layers if layer.rotary is not None}
        multiples |= {f"rotary dimension {dim}": (dim, 16) for dim in rotary_dims}
        check_multiples(multiples)
        for experts in dict.fromkeys(self.experts):
            if experts is not None:
                experts.check()
        if self.latent is not None:
            self.latent.check()


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry: the model types that it covers, and how their configuration is read.

    Args:
        model_types: what config.json may have as its `model_type`.
        models: the published models that people know it by, in one line.
    """

    name: str
    model_types: tuple[str, ...]
    read: Callable[[Config], DecoderSpec | EncoderSpec]
    task: Task = "generate"
    models: str = ""
