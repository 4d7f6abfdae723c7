"""Products with weights that are floats against float64, on shapes that divide nothing, and on every processor alike.

pytest tests/kernels/test_linear_floats.py
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.kernels.cpu.isa import PLAIN, Isa
from cupola.kernels.cpu.linear import linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.quantize.floats import widen
from cupola.quantize.formats import Format
from cupola.quantize.layouts import pack, unpack
from kernels.kernel_cases import linear_case
from kernels.kernel_driver import INSTRUCTION_SETS, NATIVE, TARGET, build

FLOATS = [fmt for fmt in Format if not fmt.integer]
SHAPES = ((1, 16), (5, 1), (50, 33), (64, 47), (577, 20))  # (inputs, outputs)
MOST_ROWS = 14
EPSILON = float(np.finfo(np.float32).eps)


@functools.cache
def product(fmt: Format, inputs: int, outputs: int, isa: Isa = INSTRUCTION_SETS[-1]) -> Callable[..., None]:
    return build(linear(LinearSpec(fmt, inputs, outputs), isa))


@pytest.mark.parametrize("fmt", FLOATS)
@settings(max_examples=40)
@given(
    shape=st.sampled_from(SHAPES),
    rows=st.integers(1, MOST_ROWS),
    spread=st.integers(0, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_are_those_of_float32(fmt: Format, shape: tuple[int, int], rows: int, spread: int, seed: int) -> None:
    inputs, outputs = shape
    random = np.random.default_rng(seed)
    weights = np.ldexp(random.standard_normal((outputs, inputs)), random.integers(-spread, spread + 1, (outputs, 1)))
    packed = pack(weights.astype(np.float32), fmt)
    exact = unpack(packed, fmt, (outputs, inputs)).astype(np.float64)
    x = random.standard_normal((rows, inputs)).astype(np.float32)
    y = np.full((rows, -(-outputs // 16) * 16), np.nan, np.float32)
    product(fmt, inputs, outputs)(x, packed, y)
    error = abs(y[:, :outputs] - x @ exact.T)
    assert (error <= inputs * EPSILON * (abs(x) @ abs(exact.T))).all()  # one rounding for each addition
    assert not y[:, outputs:].any(), "outputs that fill the last block are zero"
    alone = np.zeros((1, y.shape[1]), np.float32)
    product(fmt, inputs, outputs)(x[-1:].copy(), packed, alone)
    assert alone.tobytes() == y[-1:].tobytes(), f"the last of {rows} rows differs from itself alone"


@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("fmt", [Format.F16, Format.BF16])
def test_every_number_is_widened_exactly(fmt: Format, isa: Isa) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16)
    numbers = widen(patterns.view(np.float16) if fmt is Format.F16 else patterns, fmt)
    numbers = np.where(np.isfinite(numbers), numbers, 0)[:, None]  # outputs of one input each
    y = np.zeros((1, len(numbers)), np.float32)
    product(fmt, 1, len(numbers), isa)(np.ones((1, 1), np.float32), pack(numbers, fmt), y)
    np.testing.assert_array_equal(y[0], numbers[:, 0])


@pytest.mark.parametrize("fmt", FLOATS)
def test_every_processor_gives_the_same_bits(fmt: Format) -> None:
    """That is, with a fused multiply and add; the plain baseline of x86-64 has none, and rounds twice."""
    for spec in (LinearSpec(fmt, 50, 41, residual=True), LinearSpec(fmt, 96, 64, gated=True)):
        results = []
        for isa, target in ((PLAIN, TARGET), (INSTRUCTION_SETS[-1], TARGET), (INSTRUCTION_SETS[-1], NATIVE)):
            case = linear_case(spec, isa)
            call = build(case.function, target)
            for arguments in case.calls:
                call(*arguments)
            results.append([arguments[-1].tobytes() for arguments in case.calls])
        assert results.count(results[0]) == len(results)
        assert any(results[0][0])
