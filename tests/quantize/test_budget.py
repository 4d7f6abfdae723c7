"""Formats by a budget of bytes: never beyond it, and as good as any choice that Lagrange's multiplier can make."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola.quantize.budget import Option, choose, smallest
from cupola.quantize.formats import Format

FORMATS = (Format.Q3, Format.Q4, Format.Q8, Format.F16)
SIZES = (3, 4, 8, 16)


def matrix(elements: int, losses: tuple[float, ...]) -> list[Option]:
    return [Option(f, elements * s, loss) for f, s, loss in zip(FORMATS, SIZES, losses, strict=True)]


OPTIONS = {"a": matrix(10, (8.0, 2.0, 0.1, 0.0)), "b": matrix(10, (1.0, 0.25, 0.01, 0.0))}


def test_bytes_go_where_they_buy_most() -> None:
    assert {name: option.format for name, option in choose(OPTIONS, 70).items()} == {"a": Format.Q4, "b": Format.Q3}
    assert {name: option.format for name, option in choose(OPTIONS, 110).items()} == {"a": Format.Q4, "b": Format.Q4}
    assert {name: option.format for name, option in choose(OPTIONS, 120).items()} == {"a": Format.Q8, "b": Format.Q4}


def test_all_that_there_is_buys_the_best() -> None:
    assert smallest(OPTIONS) == 60
    assert {option.format for option in choose(OPTIONS, 60).values()} == {Format.Q3}
    assert {option.format for option in choose(OPTIONS, 320).values()} == {Format.F16}


def test_what_costs_more_and_loses_more_is_never_taken() -> None:
    held = [Option(Format.Q4, 40, 0.0), Option(Format.Q3, 30, 5.0), Option(Format.Q8, 80, 0.5)]
    assert choose({"a": held}, 1000)["a"].format is Format.Q4


loss = st.floats(0, 10)
matrices = st.lists(st.tuples(st.integers(1, 20), st.tuples(loss, loss, loss, loss)), min_size=1, max_size=4)


@given(matrices, st.floats(1, 6))
def test_the_choice_keeps_the_budget_and_little_is_better(
    found: list[tuple[int, tuple[float, ...]]], room: float
) -> None:
    options = {str(i): matrix(n, tuple(sorted(losses, reverse=True))) for i, (n, losses) in enumerate(found)}
    budget = int(smallest(options) * room)
    chosen = choose(options, budget)
    assert sum(option.size for option in chosen.values()) <= budget
    total = sum(option.loss for option in chosen.values())
    allowed = [c for c in product(*options.values()) if sum(option.size for option in c) <= budget]
    best = min(sum(option.loss for option in c) for c in allowed)
    # What greed misses is at most what one matrix more in its best format would have saved.
    assert total <= best + max(o[0].loss - o[-1].loss for o in options.values()) + 1e-9


def test_a_budget_below_the_smallest_is_the_callers_to_refuse() -> None:
    assert smallest({"a": OPTIONS["a"]}) == pytest.approx(30)
