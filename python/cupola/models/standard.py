"""What most families say in the same words: sizes, activation, layers that slide. A family changes what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from cupola.errors import UnsupportedError
from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import rotary
from cupola.models.spec import Attention, Biases, DecoderSpec, Function, Norm

# Hugging Face's names of activation functions, and ours.
FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        "silu": "silu",
        "swish": "silu",
        "gelu": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "relu": "relu",
    }
)
LLAMA_NAMES = Names()
NO_BIASES = Biases()

LayerKind = Literal["full_attention", "sliding_attention"]


def function(config: Config, key: str, default: str = "silu") -> Function:
    """The activation function under a key.

    Raises:
        UnsupportedError: it is none that the kernels compute.
    """
    name = config.text(key, default)
    if name not in FUNCTIONS:
        raise UnsupportedError(f"config.json: `{key}` is `{name}`", hint=f"supported: {', '.join(sorted(FUNCTIONS))}")
    return FUNCTIONS[name]


def head_dim(config: Config, default: int | None = None) -> int:
    """`head_dim`, or what follows from the other sizes."""
    heads = max(config.integer("num_attention_heads"), 1)
    return config.integer("head_dim", default or config.integer("hidden_size") // heads)


def rms_norm(config: Config, eps: float = 1e-6, offset: float = 0.0) -> Norm:
    """RMSNorm under its usual key; `eps` where the checkpoint says nothing."""
    return Norm(config.number("rms_norm_eps", eps), offset=offset)


def layer_kinds(config: Config, default: Callable[[int], bool] = lambda _: False) -> tuple[LayerKind, ...]:
    """What each layer sees: `layer_types` where the checkpoint lists them, else `default(layer)` says who slides.

    Raises:
        UnsupportedError: a kind that is neither full nor sliding attention.
    """
    count = config.integer("num_hidden_layers")
    given = config.texts("layer_types")
    if given is None:
        return tuple("sliding_attention" if default(i) else "full_attention" for i in range(count))
    kinds: list[LayerKind] = []
    for kind in given[:count]:
        if kind == "full_attention":
            kinds.append("full_attention")
        elif kind == "sliding_attention":
            kinds.append("sliding_attention")
        else:
            raise UnsupportedError(
                f"config.json: `layer_types` has `{kind}`", hint="supported: full_attention, sliding_attention"
            )
    return tuple(kinds)


def layers(kinds: Sequence[LayerKind], full: Attention, sliding: Attention) -> tuple[Attention, ...]:
    """The attention of each layer, by its kind."""
    return tuple(sliding if kind == "sliding_attention" else full for kind in kinds)


def alike(config: Config, attention: Attention | None = None) -> tuple[Attention, ...]:
    """The same attention in each layer; the usual one where none is given."""
    return (attention or Attention(rotary(config, head_dim(config))),) * config.integer("num_hidden_layers")


def standard(
    config: Config,
    *,
    attentions: tuple[Attention, ...] | None = None,
    norm: Norm | None = None,
    dim: int | None = None,
    tied: bool = False,
    biases: Biases = NO_BIASES,
    names: Names = LLAMA_NAMES,
    activation: Function | None = None,
) -> DecoderSpec:
    """A decoder whose sizes stand under Llama's keys.

    Args:
        attentions: of each layer; None: the usual one.
        norm: None: RMSNorm.
        dim: components of a head, where `head_dim` and its usual default do not say.
        tied: whether the output matrix is the token table, where the checkpoint says nothing.
        activation: None: that of `hidden_act`.
    """
    heads = config.integer("num_attention_heads")
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        num_heads=heads,
        num_kv_heads=config.integer("num_key_value_heads", heads),
        head_dim=dim or head_dim(config),
        layers=attentions or alike(config),
        norm=norm or rms_norm(config),
        max_context=config.integer("max_position_embeddings", 2048),
        tied=config.flag("tie_word_embeddings", tied),
        activation=activation or function(config, "hidden_act"),
        biases=biases,
        names=names,
    )
