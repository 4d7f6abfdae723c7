"""Floats of 16 bits: rounded to the nearest, kept where they fit, refused where they do not."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cupola.errors import ModelError
from cupola.quantize.floats import FLOAT_DTYPES, narrow, widen
from cupola.quantize.formats import Format

DTYPES = {Format.F16: np.float16, Format.BF16: ml_dtypes.bfloat16}
LARGEST = {Format.F16: 65504.0, Format.BF16: float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)}


def every_number(fmt: Format) -> np.ndarray:
    """All 16-bit patterns that are finite, as the format's own type: [1, n]."""
    values = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[fmt])
    return values[np.isfinite(values.astype(np.float32))][None]


@pytest.mark.parametrize("fmt", DTYPES)
def test_every_number_of_the_format_keeps_its_bits(fmt: Format) -> None:
    numbers = every_number(fmt)
    stored = narrow(numbers.astype(np.float32), fmt)
    assert stored.dtype == FLOAT_DTYPES[fmt]
    assert stored.tobytes() == numbers.tobytes()
    assert widen(stored, fmt).tobytes() == numbers.astype(np.float32).tobytes()
    assert narrow(stored, fmt) is stored


@pytest.mark.parametrize("fmt", DTYPES)
def test_others_are_rounded_to_the_nearest(fmt: Format) -> None:
    random = np.random.default_rng(0)
    matrix = np.ldexp(random.standard_normal((64, 64)), random.integers(-40, 12, (64, 64))).astype(np.float32)
    numbers = np.sort(every_number(fmt).astype(np.float32).ravel())
    halfway = ((numbers[:-1].astype(np.float64) + numbers[1:]) / 2).astype(np.float32)[None]  # ties, to even
    for values in (matrix, halfway):
        assert narrow(values, fmt).tobytes() == values.astype(DTYPES[fmt]).tobytes()


@pytest.mark.parametrize("fmt", DTYPES)
@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_become_infinite_is_refused(fmt: Format, sign: int) -> None:
    largest = np.full((2, 3), sign * LARGEST[fmt], np.float32)
    np.testing.assert_array_equal(widen(narrow(largest, fmt), fmt), largest)
    for beyond in (np.float32(LARGEST[fmt]) * np.float32(1.003), np.float32(np.inf), np.float32(np.nan)):
        largest[1, 2] = sign * beyond
        with pytest.raises(ModelError, match=f"which is not a number of {fmt.value}") as caught:
            narrow(largest, fmt)
        assert f"holds {largest[1, 2]:g}," in caught.value.message
    assert ("bf16" in str(caught.value.hint)) == (fmt is Format.F16)
