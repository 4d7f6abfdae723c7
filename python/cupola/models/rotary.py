"""Rotary frequencies of a model, with the scalings that stretch its context.

Sources: Su et al. 2021 (rotary), kaiokendev 2023 (linear), Llama 3.1 model card (llama3), Peng et al. 2023 (yarn), Ding
et al. 2024 (longrope). Computed in float32, in the order of operations that Hugging Face transformers uses, because
positions multiply whatever error there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cupola.errors import ModelError, UnsupportedError
from cupola.models.config import Config

_DEFAULT_THETA = 10000.0


@dataclass(frozen=True)
class Rotary:
    """Which components of a head rotate, and how fast.

    Args:
        frequencies: float32 [dim / 2], radians a position.
        magnitude: factor on cosines and sines.
    """

    frequencies: tuple[float, ...]
    magnitude: float = 1.0

    @property
    def dim(self) -> int:
        """Rotated components of a head."""
        return 2 * len(self.frequencies)


def rotary(
    config: Config, head_dim: int, *, kind: str | None = None, theta: float = 0.0, partial: float = 1.0
) -> Rotary:
    """Reads `rope_theta` and `rope_scaling` (or `rope_parameters`, which newer checkpoints have instead of both).

    Args:
        head_dim: components of a head.
        kind: for a model whose layers differ, such as `sliding_attention`: the table of that name in `rope_parameters`.
        theta: what the family has where its checkpoints say nothing.
        partial: the part of a head that rotates, likewise.

    Raises:
        UnsupportedError: a scaling that Cupola does not know.
    """
    scaling = config.table("rope_parameters") or config.table("rope_scaling")
    if scaling is not None and kind is not None:
        scaling = scaling.table(kind) or scaling
    theta = config.number("rope_theta", theta or _DEFAULT_THETA)
    partial = config.number("partial_rotary_factor", partial)
    if scaling is not None:
        theta = scaling.number("rope_theta", theta)
        partial = scaling.number("partial_rotary_factor", partial)
    frequencies = plain(int(head_dim * partial), theta)
    if scaling is None:
        return _rotary(frequencies)
    return _scaled(config, scaling, frequencies, theta)


def local_rotary(config: Config, head_dim: int, theta: float) -> Rotary:
    """The positions of layers that slide, which nothing stretches; `theta` where the checkpoint has none for them."""
    tables = config.table("rope_parameters")
    if tables is not None and tables.has("sliding_attention"):
        return rotary(config, head_dim, kind="sliding_attention", theta=theta)
    return _rotary(plain(head_dim, theta))


def plain(dim: int, theta: float) -> np.ndarray:
    """The frequencies of `dim` components: float32 [dim / 2]."""
    exponents = np.arange(0, dim, 2, dtype=np.int64).astype(np.float32) / np.float32(dim)
    return (np.float32(1.0) / np.power(np.float32(theta), exponents)).astype(np.float32)


def _rotary(frequencies: np.ndarray, magnitude: float = 1.0) -> Rotary:
    return Rotary(tuple(float(f) for f in frequencies.astype(np.float32)), magnitude)


def _kind(scaling: Config) -> str:
    return scaling.text("rope_type", scaling.text("type", "default"))


def _scaled(config: Config, scaling: Config, frequencies: np.ndarray, theta: float) -> Rotary:
    kind = _kind(scaling)
    if kind in ("default", "dynamic"):
        # The dynamic scaling differs from none only past the trained context, where the engine does not go.
        return _rotary(frequencies)
    if kind == "linear":
        return _rotary(frequencies / np.float32(scaling.number("factor")))
    if kind == "llama3":
        return _rotary(_llama3(frequencies, scaling))
    if kind == "yarn":
        return _yarn(config, scaling, frequencies, theta)
    if kind in ("longrope", "su"):
        return _longrope(config, scaling, frequencies)
    raise UnsupportedError(
        f"rope scaling `{kind}` is not supported", hint="supported: default, linear, dynamic, llama3, yarn, longrope"
    )


def _llama3(frequencies: np.ndarray, scaling: Config) -> np.ndarray:
    """Long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""
    factor = scaling.number("factor")
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    context = scaling.number("original_max_position_embeddings")
    wavelength = 2 * math.pi / frequencies
    smooth = (context / wavelength - low) / (high - low)
    between = (1 - smooth) * (frequencies / factor) + smooth * frequencies
    scaled = np.where(wavelength > context / low, frequencies / factor, frequencies)
    medium = (wavelength >= context / high) & (wavelength <= context / low)
    return np.where(medium, between, scaled).astype(np.float32)


def _stretch(config: Config, scaling: Config) -> tuple[float, float]:
    """The factor by which the context was stretched, and the context before."""
    context = config.number("max_position_embeddings")
    original = scaling.number(
        "original_max_position_embeddings", config.number("original_max_position_embeddings", context)
    )
    return scaling.number("factor", context / original), original


def _yarn(config: Config, scaling: Config, frequencies: np.ndarray, theta: float) -> Rotary:
    """Frequencies that turn often within the original context are kept, those that turn rarely are stretched."""
    dim = 2 * len(frequencies)
    factor, original = _stretch(config, scaling)

    def component(turns: float) -> float:
        """The component that turns so often within the original context."""
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = component(scaling.number("beta_fast", 32.0))
    high = component(scaling.number("beta_slow", 1.0))
    if scaling.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (np.arange(dim // 2, dtype=np.float32) - low) / ((high - low) or 0.001)
    kept = np.float32(1) - np.clip(ramp, 0, 1).astype(np.float32)
    mixed = frequencies / np.float32(factor) * (1 - kept) + frequencies * kept
    return _rotary(mixed, _yarn_magnitude(scaling, factor))


def _yarn_magnitude(scaling: Config, factor: float) -> float:
    one, all_dims = scaling.number("mscale", 0.0), scaling.number("mscale_all_dim", 0.0)
    usual = _grown(factor, one) / _grown(factor, all_dims) if one and all_dims else _grown(factor, 1.0)
    return scaling.number("attention_factor", usual)


def _grown(factor: float, weight: float) -> float:
    """How much larger scores shall be in a context that was stretched by a factor (Peng et al., 2023, 3.4)."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def mscale(config: Config) -> float:
    """The factor on queries and on keys of a stretched context that `mscale_all_dim` asks for (DeepSeek-V2, 2024)."""
    scaling = config.table("rope_parameters") or config.table("rope_scaling")
    if scaling is None or _kind(scaling) == "default":
        return 1.0
    return _grown(_stretch(config, scaling)[0], scaling.number("mscale_all_dim", 0.0))


def _longrope(config: Config, scaling: Config, frequencies: np.ndarray) -> Rotary:
    """A searched factor for each frequency: one list for the original context, one for the stretched one.

    transformers changes lists when a sequence outgrows the original context, which would change keys that are in the
    cache already, and with them what short sequences get; here the context that the model is compiled for decides,
    once. Who wants what short sequences were trained with compiles for the original context.
    """
    factor, original = _stretch(config, scaling)
    stretched = (config.served or config.number("max_position_embeddings")) > original
    factors = np.array(scaling.numbers("long_factor" if stretched else "short_factor"), np.float32)
    if len(factors) != len(frequencies):
        raise ModelError(f"config.json: longrope has {len(factors)} factors for {len(frequencies)} frequencies")
    grown = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return _rotary(frequencies / factors, scaling.number("attention_factor", grown))
