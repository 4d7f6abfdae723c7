"""Qwen 2, 2.5 (biases on q, k, v) and 3 (norms of q and k instead) (Yang et al., 2024 and 2025)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import head_dim, layer_kinds, layers, standard


def read_qwen2(config: Config) -> DecoderSpec:
    """The shape out of a Qwen 2 config.json."""
    attention = Attention(rotary(config, head_dim(config)))
    return standard(config, attentions=_layers(config, attention), biases=Biases(qkv=True))


def read_qwen3(config: Config) -> DecoderSpec:
    """The shape out of a Qwen 3 config.json."""
    dim, bias = head_dim(config, 128), config.flag("attention_bias", False)
    attention = Attention(rotary(config, dim), qk_norm="head")
    return standard(config, attentions=_layers(config, attention), dim=dim, biases=Biases(qkv=bias, output=bias))


def _layers(config: Config, full: Attention) -> tuple[Attention, ...]:
    """The layers behind `max_window_layers` slide, where sliding is in use at all."""
    slides = config.flag("use_sliding_window", False)
    first = config.integer("max_window_layers", 28)
    window = config.integer("sliding_window", 4096) if slides else 0
    return layers(layer_kinds(config, lambda i: slides and i >= first), full, replace(full, window=window))


QWEN2 = Architecture(
    name="qwen2",
    model_types=("qwen2",),
    read=read_qwen2,
    models="Qwen 2 and 2.5, QwQ, the distilled DeepSeek-R1 of these",
)
QWEN3 = Architecture(name="qwen3", model_types=("qwen3",), read=read_qwen3, models="Qwen 3, dense")
