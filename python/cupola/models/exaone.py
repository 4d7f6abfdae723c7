"""EXAONE 4: norms behind attention and network, and of q and k (LG AI Research, 2025).

In the large one three layers of four slide, and only they know positions.
"""

from __future__ import annotations

from dataclasses import replace

from cupola.errors import UnsupportedError
from cupola.models.config import Config
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, DecoderSpec
from cupola.models.standard import head_dim, layer_kinds, layers, rms_norm, standard


def read(config: Config) -> DecoderSpec:
    """The shape out of an EXAONE 4 config.json."""
    window = config.integer("sliding_window", 0)
    sliding = Attention(rotary(config, head_dim(config)), window=window, qk_norm="head")
    full = replace(sliding, window=0, rotary=None if window else sliding.rotary)
    kinds = layer_kinds(config, lambda i: window > 0 and (i + 1) % _interval(config) != 0)
    spec = standard(config, attentions=layers(kinds, full, sliding), norm=rms_norm(config, 1e-5))
    return replace(spec, placement="after")


def _interval(config: Config) -> int:
    """Every so many layers one sees everything: `sliding_window_pattern` as a number, or as `LLLG`."""
    if not config.is_text("sliding_window_pattern"):
        return config.integer("sliding_window_pattern", 4)
    pattern = config.text("sliding_window_pattern")
    if pattern != "L" * (len(pattern) - 1) + "G":
        raise UnsupportedError(
            f"config.json: `sliding_window_pattern` is `{pattern}`", hint="supported: some L, then one G, or a number"
        )
    return len(pattern)


EXAONE4 = Architecture(name="exaone4", model_types=("exaone4",), read=read, models="EXAONE 4")
