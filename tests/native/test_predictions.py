"""What the scheduler expects: the peak of memory, the length of outputs, the time of a step."""

from __future__ import annotations

import itertools

import tvm_ffi
from hypothesis import given
from hypothesis import strategies as st

from cupola.engine.native_library import native


def peak(*loads: tuple[int, int]) -> int:
    return int(native("testing.peak")(tvm_ffi.Shape(tuple(itertools.chain(*loads)))))


def predicted(ended: list[int], generated: int, max_tokens: int) -> int:
    return int(native("testing.predict_output")(tvm_ffi.Shape(tuple(ended)), generated, max_tokens))


def prefill_rows(steps: list[tuple[int, int, int]], decode_rows: int, most: int = 512, fixed: int = 0) -> int:
    return int(native("testing.prefill_rows")(fixed, tvm_ffi.Shape(tuple(itertools.chain(*steps))), decode_rows, most))


def test_the_peak_of_lightllms_two_examples() -> None:
    assert peak((5, 4), (4, 3), (5, 3), (3, 2), (4, 2)) == 31
    assert peak((5, 4), (4, 3), (5, 3), (3, 2), (4, 2), (10, 1)) == 37


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), max_size=8))
def test_the_peak_is_the_most_of_a_simulation(loads: list[tuple[int, int]]) -> None:
    moments = [sum(held + t for held, left in loads if left >= t) for t in range(31)]
    assert peak(*loads) == max(moments)


def test_the_estimate_of_lengths_follows_those_that_ended() -> None:
    assert predicted([], 0, 4096) == 2048
    assert predicted([], 0, 100) == 100
    assert predicted([100], 0, 4096) == (2048 + 100) // 2
    assert predicted([1] * 100, 0, 4096) == 64  # no length counts as less
    assert predicted([1] * 100, 500, 4096) == 550  # who has grown beyond it is expected to grow on
    assert predicted([1] * 100 + [1000] * 10, 0, 4096) > 300


def test_a_prompt_gets_the_rows_that_keep_a_step_within_its_bound() -> None:
    quiet = [(8, 0, 9000)] * 20  # eight rows that generate take 9 ms
    busy = [(8, 56, 9000 + 56 * 290)] * 20  # and a row of a prompt 0.29 ms
    rows = prefill_rows(quiet + busy, decode_rows=8)
    assert 9000 + rows * 290 <= 5.0 * 9000 < 9000 + (rows + 1) * 290


def test_rows_of_prompts_are_unlimited_where_nobody_generates_and_never_none() -> None:
    slow = [(8, 0, 100), (8, 56, 1_000_000)]
    assert prefill_rows(slow, decode_rows=0) == 512
    assert prefill_rows(slow, decode_rows=8) == 8
    assert prefill_rows(slow, decode_rows=8, most=5) == 5
    assert prefill_rows([], decode_rows=8) == 64, "nothing has been measured"


def test_a_fixed_number_of_rows_is_kept() -> None:
    assert prefill_rows([(8, 0, 100), (8, 64, 1_000_000)], decode_rows=8, fixed=100) == 100
    assert prefill_rows([], decode_rows=0, fixed=100) == 100
