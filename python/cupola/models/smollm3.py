"""SmolLM3: Llama in which every fourth layer knows no positions (Bakouch et al., 2025)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import head_dim, layer_kinds, layers, standard


def read(config: Config) -> DecoderSpec:
    """The shape out of a SmolLM3 config.json; `no_rope_layers` has 1 for the layers that do rotate."""
    count, interval = config.integer("num_hidden_layers"), config.integer("no_rope_layer_interval", 4)
    if config.has("no_rope_layers"):
        rotates = [bool(flag) for flag in config.numbers("no_rope_layers")]
    else:
        rotates = [(i + 1) % interval != 0 for i in range(count)]
    slides = config.flag("use_sliding_window", False)
    window = config.integer("sliding_window", 0) if slides else 0
    full = Attention(rotary(config, head_dim(config), theta=2e6))
    kinds = layer_kinds(config, lambda i: window > 0 and not rotates[i])
    attentions = layers(kinds, full, replace(full, window=window))
    bias = config.flag("attention_bias", False)
    return standard(
        config,
        attentions=tuple(a if r else replace(a, rotary=None) for a, r in zip(attentions, rotates, strict=True)),
        biases=Biases(qkv=bias, output=bias, ffn=config.flag("mlp_bias", False)),
        tied=True,
    )


SMOLLM3 = Architecture(name="smollm3", model_types=("smollm3",), read=read, models="SmolLM3")
