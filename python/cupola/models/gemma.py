"""Gemma 1, 2 and 3, text only (Gemma Team, 2024 and 2025): scaled embeddings, norms written as differences from one.

Gemma 2 puts norms around attention and network, caps scores and logits, and lets every other layer slide. Gemma 3 norms
q and k instead of capping scores, and lets five layers of six slide, with frequencies of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import local_rotary, rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import alike, function, head_dim, layer_kinds, layers, rms_norm, standard

_NAMES = Names(ffn_norm="pre_feedforward_layernorm")


def read_gemma(config: Config) -> DecoderSpec:
    """The shape out of a Gemma config.json."""
    dim = head_dim(config, 256)
    return _gemma(config, alike(config, Attention(rotary(config, dim))), dim)


def read_gemma2(config: Config) -> DecoderSpec:
    """The shape out of a Gemma 2 config.json."""
    dim = head_dim(config, 256)
    full = Attention(
        rotary(config, dim), soft_cap=config.number("attn_logit_softcapping", 0.0), query_scale=_query_scale(config)
    )
    sliding = replace(full, window=config.integer("sliding_window", 4096))
    kinds = layer_kinds(config, lambda i: i % 2 == 0)
    return replace(_gemma(config, layers(kinds, full, sliding), dim), placement="around", names=_NAMES)


def read_gemma3(config: Config) -> DecoderSpec:
    """The shape out of the config.json of a Gemma 3 for text."""
    dim = head_dim(config, 256)
    full = Attention(
        rotary(config, dim, kind="full_attention", theta=1e6), query_scale=_query_scale(config), qk_norm="head"
    )
    sliding = replace(
        full,
        rotary=local_rotary(config, dim, config.number("rope_local_base_freq", 10000.0)),
        window=config.integer("sliding_window", 4096),
    )
    pattern = config.integer("sliding_window_pattern", 6)
    kinds = layer_kinds(config, lambda i: (i + 1) % pattern != 0)
    return replace(_gemma(config, layers(kinds, full, sliding), dim), placement="around", names=_NAMES)


def _gemma(config: Config, attentions: tuple[Attention, ...], dim: int) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    spec = standard(
        config,
        attentions=attentions,
        norm=rms_norm(config, offset=1.0),
        dim=dim,
        tied=True,
        biases=Biases(qkv=bias, output=bias),
        activation=function(config, "hidden_activation", "gelu_pytorch_tanh"),
    )
    cap = config.number("final_logit_softcapping", 0.0)
    return replace(spec, embedding_scale=spec.hidden_size**0.5, logit_cap=cap)


def _query_scale(config: Config) -> float:
    return config.number("query_pre_attn_scalar", 256.0) ** -0.5


# What the `text_config` of a Gemma 3 that sees leaves out.
GEMMA3_TEXT: Mapping[str, object] = MappingProxyType(
    {
        "model_type": "gemma3_text",
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
    }
)

GEMMA = Architecture(name="gemma", model_types=("gemma",), read=read_gemma, models="Gemma 1")
GEMMA2 = Architecture(name="gemma2", model_types=("gemma2",), read=read_gemma2, models="Gemma 2")
GEMMA3 = Architecture(
    name="gemma3", model_types=("gemma3_text",), read=read_gemma3, models="Gemma 3; of those that see, the text part"
)
