"""Command R, R7B and Aya (Cohere, 2024 and 2025): attention and network read one stream through one norm.

Rotary pairs are neighbours. In Cohere 2 three layers of four slide, and only they know positions.
"""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec, Norm, QkNorm
from cupola.models.standard import alike, head_dim, layer_kinds, layers, standard

_NAMES = Names(interleaved=True)


def read_cohere(config: Config) -> DecoderSpec:
    """The shape out of a Cohere config.json."""
    norm: QkNorm = "heads" if config.flag("use_qk_norm", False) else "none"  # Command R+
    return _cohere(config, alike(config, Attention(rotary(config, head_dim(config), theta=5e5), qk_norm=norm)))


def read_cohere2(config: Config) -> DecoderSpec:
    """The shape out of a Cohere 2 config.json."""
    sliding = Attention(rotary(config, head_dim(config)), window=config.integer("sliding_window", 4096))
    pattern = config.integer("sliding_window_pattern", 4)
    kinds = layer_kinds(config, lambda i: (i + 1) % pattern != 0)
    return _cohere(config, layers(kinds, Attention(rotary=None), sliding))


def _cohere(config: Config, attentions: tuple[Attention, ...]) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    spec = standard(
        config,
        attentions=attentions,
        norm=Norm(config.number("layer_norm_eps", 1e-5), centered=True),
        tied=True,
        biases=Biases(qkv=bias, output=bias),
        names=_NAMES,
    )
    return replace(spec, placement="parallel_shared", logit_scale=config.number("logit_scale", 0.0625))


COHERE = Architecture(name="cohere", model_types=("cohere",), read=read_cohere, models="Command R and R+, Aya 23")
COHERE2 = Architecture(name="cohere2", model_types=("cohere2",), read=read_cohere2, models="Command R7B and A")
