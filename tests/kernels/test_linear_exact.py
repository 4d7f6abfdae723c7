"""Quantized products against float64, on weights and activations that no rounding has made harmless.

Codes, scales and activations are drawn as such, so that all of their ranges occur: scales of zero and below the least
normal float16, codes at their limits, activations of one sign. The error bound is that of the float32 sums alone; the
integers have to be exact.

The largest sums of 16 bits, each tested below:
    q4, q4s: a step adds two products of at most 15 * 127, and 8 steps are added before they are widened:
        8 * 2 * 15 * 127 = 30480 < 32767 (codes are 0..15, `activation.quantize` makes -127..127); q3 has less
    mxfp4: codes are 0..24, and half as many steps are added: 4 * 2 * 24 * 127 = 24384 < 32767
    q8: two products of at most 128 * 127 are widened at once: 2 * 128 * 127 = 32512 < 32767 (Q8 has codes -128..127)

pytest tests/kernels/test_linear_exact.py
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear import linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.quantize.formats import GROUP, Format, Quantized
from cupola.quantize.layouts import pack
from cupola.quantize.mxfp4 import BIAS, CODE_HALVES, ZERO_HALVES, scales
from cupola.quantize.rounding import requantize
from kernels.kernel_driver import INSTRUCTION_SETS, TARGETS, build

EPSILON = float(np.finfo(np.float32).eps)
SHAPES = ((32, 1), (32, 33), (64, 16), (32 * 5, 47), (32 * 17, 20), (32 * 33, 31))  # (inputs, outputs)
CODES = {Format.Q4: (0, 15), Format.Q4S: (0, 15), Format.Q3: (0, 7), Format.Q8: (-128, 127), Format.MXFP4: (0, 15)}
EXTREMES = CODES | {Format.MXFP4: (7, 15)}  # 6 and -6
# The code that stands for 0, minima aside.
ZERO = {Format.Q4: 0, Format.Q4S: 8, Format.Q3: 0, Format.Q8: 0, Format.MXFP4: ZERO_HALVES}


@functools.cache
def product(fmt: Format, inputs: int, outputs: int, isa: Isa) -> Callable[..., None]:
    return build(linear(LinearSpec(fmt, inputs, outputs), isa), TARGETS[isa])


def drawn_weights(rng: np.random.Generator, fmt: Format, shape: tuple[int, int], extreme: bool) -> Quantized:
    low, high = CODES[fmt]
    values = rng.choice(EXTREMES[fmt], shape) if extreme else rng.integers(low, high + 1, shape)
    groups = (shape[0], shape[1] // GROUP)
    if fmt is Format.MXFP4:
        return Quantized(fmt, values.astype(np.uint8), rng.choice(np.array([0, 40, 100, 121, 140], np.uint8), groups))
    scale = rng.choice(np.array([0.0, 6e-8, 0.01, -0.02, 1.0, 300.0], np.float16), groups)
    minimum = rng.choice(np.array([0.0, -0.1, 2.5, -6e-8], np.float16), groups) if fmt is Format.Q4 else None
    zero = rng.choice(np.array([0, 1, 112, 255], np.uint8), groups) if fmt is Format.Q3 else None
    return Quantized(fmt, values.astype(np.int8 if fmt is Format.Q8 else np.uint8), scale, minimum, zero)


def drawn_activations(rng: np.random.Generator, rows: int, inputs: int, extreme: bool) -> tuple[np.ndarray, np.ndarray]:
    q = rng.choice([-127, 127], (rows, 1)) * np.ones((rows, inputs)) if extreme else None
    q = (rng.integers(-127, 128, (rows, inputs)) if q is None else q).astype(np.int8)
    d = rng.choice(np.array([0.0, 1e-30, 0.003, 1.5], np.float32), (rows, inputs // GROUP))
    total = q.reshape(rows, -1, GROUP).sum(axis=-1, dtype=np.int32).astype(np.float32)
    return q, np.stack([d, total], axis=-1)


def exact(weights: Quantized, q: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(y, the sum of the absolute values of all that is added) in float64: [rows, outputs]."""
    fp4 = weights.format is Format.MXFP4
    values = np.array(CODE_HALVES)[weights.values] if fp4 else weights.values
    scale = scales(weights.scale) if fp4 else weights.scale
    grouped = values.astype(np.int64).reshape(len(values), -1, GROUP)
    dots = np.einsum("rgk,ngk->rng", q.astype(np.int64).reshape(len(q), -1, GROUP), grouped)
    terms = dots * scale.astype(np.float64) * s[:, None, :, 0].astype(np.float64)
    # What all weights of a group have in common: a minimum, or an implied one.
    common = -ZERO[weights.format] * scale.astype(np.float64)
    if weights.minimum is not None:
        common = weights.minimum.astype(np.float64)
    if weights.zero is not None:
        common = weights.scale.astype(np.float64) * weights.zero / -32
    shifts = common * (s[..., 0].astype(np.float64) * s[..., 1])[:, None]
    return (terms + shifts).sum(axis=-1), (abs(terms) + abs(shifts)).sum(axis=-1)


def check(fmt: Format, isa: Isa, shape: tuple[int, int], weights: Quantized, q: np.ndarray, s: np.ndarray) -> None:
    inputs, outputs = shape
    width = -(-outputs // 16) * 16
    y = np.full((len(q), width), np.nan, np.float32)
    product(fmt, inputs, outputs, isa)(q, s, pack(weights, fmt), y)
    expected, magnitude = exact(weights, q, s)
    # Two roundings a group and term, and at most one for each addition, of sums that are at most `magnitude`.
    bound = (2 * (inputs // GROUP) + 4) * EPSILON * magnitude + np.finfo(np.float32).tiny
    error = abs(y[:, :outputs] - expected)
    assert (error <= bound).all(), f"off by {(error - bound).max()} more than float32 sums may be"
    assert not y[:, outputs:].any(), "outputs that fill the last block are zero"


@pytest.mark.parametrize("fmt", CODES)
@settings(max_examples=60)
@given(
    shape=st.sampled_from(SHAPES),
    rows=st.integers(1, 40),
    extreme=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_are_exact_up_to_float_sums(
    fmt: Format, shape: tuple[int, int], rows: int, extreme: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = drawn_weights(rng, fmt, (shape[1], shape[0]), extreme)
    check(fmt, INSTRUCTION_SETS[-1], shape, weights, *drawn_activations(rng, rows, shape[0], extreme))


@pytest.mark.parametrize("isa", TARGETS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("sign", [-127, 127])
@pytest.mark.parametrize(
    ("fmt", "code"),
    [
        *((Format.Q4, 15), (Format.Q4S, 15), (Format.Q4S, 0), (Format.Q3, 7), (Format.Q8, -128), (Format.Q8, 127)),
        *((Format.MXFP4, 7), (Format.MXFP4, 15)),
    ],
)
def test_the_largest_sums_do_not_overflow(fmt: Format, code: int, sign: int, isa: Isa) -> None:
    inputs, outputs, rows = 64, 16, 13
    values = np.full((outputs, inputs), code, np.int8 if fmt is Format.Q8 else np.uint8)
    ones = np.ones((outputs, inputs // GROUP), np.float16)
    if fmt is Format.MXFP4:
        ones = np.full(ones.shape, BIAS, np.uint8)
    zero = np.zeros(ones.shape, np.uint8) if fmt is Format.Q3 else None
    weights = Quantized(fmt, values, ones, 0 * ones if fmt is Format.Q4 else None, zero)
    q = np.full((rows, inputs), sign, np.int8)
    s = np.stack([np.ones((rows, 2)), np.full((rows, 2), GROUP * sign)], axis=-1).astype(np.float32)
    y = np.zeros((rows, outputs), np.float32)
    product(fmt, inputs, outputs, isa)(q, s, pack(weights, fmt), y)
    number = CODE_HALVES[code] if fmt is Format.MXFP4 else code
    assert (y == (number - ZERO[fmt]) * sign * inputs).all()


@pytest.mark.parametrize("isa", TARGETS, ids=lambda isa: isa.name)
def test_an_implied_minimum_gives_the_bits_of_a_stored_one(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    inputs, outputs = 64, 16
    implied = drawn_weights(rng, Format.Q4S, (outputs, inputs), extreme=False)
    stored = requantize(implied, Format.Q4)
    assert stored.minimum is not None
    for rows in (1, 2, 3, 8, 13, 40):
        q, s = drawn_activations(rng, rows, inputs, extreme=False)
        results = [np.zeros((rows, outputs), np.float32) for _ in range(2)]
        for weights, y in zip((implied, stored), results, strict=True):
            product(weights.format, inputs, outputs, isa)(q, s, pack(weights, weights.format), y)
        assert results[0].any()
        assert np.array_equal(results[0].view(np.uint32), results[1].view(np.uint32)), f"{rows} rows"
