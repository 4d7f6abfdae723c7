"""MXFP4: the numbers that codes stand for, and what becomes of them in other formats."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from cupola.errors import ModelError
from cupola.quantize.formats import Format, Quantized
from cupola.quantize.mxfp4 import CODE_HALVES, ZERO_HALVES, halves
from cupola.quantize.rounding import dequantize, quantize, requantize

ALL_CODES = np.arange(32, dtype=np.uint8)[None] % 16


def test_codes_are_the_floats_of_four_bits() -> None:
    numbers = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    np.testing.assert_array_equal(halves(np.arange(16)) / 2, numbers)
    assert min(CODE_HALVES) == 0
    assert max(CODE_HALVES) == 2 * ZERO_HALVES


@pytest.mark.parametrize("exponent", [1, 60, 127, 128, 200])
def test_scales_are_powers_of_two(exponent: int) -> None:
    matrix = Quantized(Format.MXFP4, ALL_CODES, np.full((1, 1), exponent, np.uint8))
    scale = np.uint8(exponent).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(dequantize(matrix), halves(ALL_CODES) * (scale / 2))


def test_eight_bits_hold_every_number() -> None:
    matrix = Quantized(Format.MXFP4, ALL_CODES, np.full((1, 1), 120, np.uint8))
    eight = requantize(matrix, Format.Q8)
    assert eight.format is Format.Q8
    np.testing.assert_array_equal(dequantize(eight), dequantize(matrix))
    tiny = replace(matrix, scale=np.full((1, 1), 20, np.uint8))  # beyond float16
    np.testing.assert_allclose(dequantize(requantize(tiny, Format.Q8)), dequantize(tiny), atol=1e-7)


def test_rounding_takes_the_nearest_number() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((16, 64), dtype=np.float32)
    found = quantize(matrix, Format.MXFP4)
    scale = np.ldexp(np.float32(1), found.scale.astype(int) - 127)[:, :, None]
    groups = matrix.reshape(16, 2, 32, 1) / scale[..., None]
    numbers = halves(np.arange(16)) / 2
    best = np.abs(groups - numbers).min(axis=-1)
    error = np.abs(dequantize(found).reshape(16, 2, 32) / scale - groups[..., 0])
    np.testing.assert_allclose(error, best, atol=1e-6)
    largest = np.abs(groups).max(axis=(2, 3))
    assert (largest <= 6).all()  # nothing is clipped, and no smaller scale would do
    assert (largest > 3).all()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ModelError, match="not finite"):
        quantize(np.full((1, 32), np.inf, np.float32), Format.MXFP4)
