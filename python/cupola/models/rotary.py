"""Rotary frequencies of a model, with the scalings that stretch its context.

Sources: Su et al. 2021 (rotary), kaiokendev 2023 (linear), Llama 3.1 model card (llama3). Computed in float32, in the
order of operations that Hugging Face transformers uses, because positions multiply whatever error there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cupola.errors import UnsupportedError
from cupola.models.config import Config


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


def rotary(config: Config, dim: int) -> Rotary:
    """Reads `rope_theta` and `rope_scaling` (or `rope_parameters`, which newer checkpoints have instead of both).

    Raises:
        UnsupportedError: a scaling that Cupola does not know.
    """
    scaling = config.table("rope_parameters") or config.table("rope_scaling")
    theta = config.number("rope_theta", 0.0)
    if scaling is not None:
        theta = scaling.number("rope_theta", theta)
    exponents = np.arange(0, dim, 2, dtype=np.int64).astype(np.float32) / np.float32(dim)
    frequencies = (np.float32(1.0) / np.power(np.float32(theta or 10000.0), exponents)).astype(np.float32)
    if scaling is not None:
        kind = scaling.text("rope_type", scaling.text("type", "default"))
        frequencies = _scaled(kind, frequencies, scaling)
    return Rotary(tuple(float(f) for f in frequencies))


def _scaled(kind: str, frequencies: np.ndarray, scaling: Config) -> np.ndarray:
    if kind in ("default", "dynamic"):
        # The dynamic scaling differs from none only past the trained context, where the engine does not go.
        return frequencies
    if kind == "linear":
        return (frequencies / np.float32(scaling.number("factor"))).astype(np.float32)
    if kind == "llama3":
        return _llama3(frequencies, scaling)
    raise UnsupportedError(
        f"rope scaling `{kind}` is not supported", hint="supported: default, linear, dynamic, llama3"
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
