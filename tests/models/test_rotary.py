"""Rotary frequencies: the scalings that have a closed form, and the refusals."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.errors import ModelError, UnsupportedError
from cupola.models.config import Config
from cupola.models.rotary import rotary


def frequencies(**values: object) -> np.ndarray:
    return np.array(rotary(Config(values), 8).frequencies)


PLAIN = 10000.0 ** (-np.arange(4) / 4)


def test_plain() -> None:
    np.testing.assert_allclose(frequencies(rope_theta=10000.0), PLAIN, rtol=1e-6)
    assert rotary(Config({"rope_theta": 10000.0}), 8).dim == 8


def test_theta_of_either_generation_of_keys() -> None:
    old = frequencies(rope_theta=500000.0)
    new = frequencies(rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    assert np.array_equal(old, new)
    np.testing.assert_allclose(old[1], 500000.0**-0.25, rtol=1e-6)


def test_linear_divides_by_the_factor() -> None:
    scaled = frequencies(rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0})
    np.testing.assert_allclose(scaled, PLAIN / 4, rtol=1e-6)


def test_llama3_keeps_the_fast_and_stretches_the_slow() -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    scaled = frequencies(rope_theta=10000.0, rope_scaling=scaling)
    np.testing.assert_allclose(scaled[0], PLAIN[0], rtol=1e-6)  # wavelength 6 is below 64 / 4
    np.testing.assert_allclose(scaled[2:], PLAIN[2:] / 8, rtol=1e-6)  # wavelengths from 628 are above 64
    smooth = (64 / (2 * np.pi / PLAIN[1]) - 1) / 3
    np.testing.assert_allclose(scaled[1], ((1 - smooth) / 8 + smooth) * PLAIN[1], rtol=1e-5)


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(UnsupportedError, match="spiral"):
        frequencies(rope_scaling={"rope_type": "spiral"})
    with pytest.raises(ModelError, match="factor"):
        frequencies(rope_scaling={"rope_type": "linear"})
    with pytest.raises(ModelError, match="rope_scaling"):
        frequencies(rope_scaling="linear")
