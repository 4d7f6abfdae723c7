"""Spreads, ratios, percentiles, and the figures of one request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola.bench.sample import Sample
from cupola.bench.statistics import Spread, percentile, ratios


def test_a_spread_keeps_the_middle_and_the_ends() -> None:
    assert Spread.of([5.0, 1.0, 9.0]) == Spread(5.0, 1.0, 9.0)
    assert Spread.of([4.0, 2.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread(4.0, 2.0, 6.0).scaled(0.5) == Spread(2.0, 1.0, 3.0)


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was half as fast in the second round: the ratio of the medians would be 1.5 / 0.75 as well, but the
    # ratio of each round does not move at all.
    assert ratios([2.0, 1.0], [1.0, 0.5]) == Spread(2.0, 2.0, 2.0)
    assert ratios([4.0, 1.0, 9.0], [2.0, 1.0, 3.0]) == Spread(2.0, 1.0, 3.0)


def test_rounds_without_a_second_value_have_no_ratio() -> None:
    assert ratios([4.0, 1.0], [2.0, 0.0]) == Spread(2.0, 2.0, 2.0)
    assert ratios([4.0], [0.0]) is None


def test_percentiles_lie_between_the_nearest_ranks() -> None:
    values = [40.0, 10.0, 30.0, 20.0]
    assert percentile(values, 0) == 10
    assert percentile(values, 50) == 25
    assert percentile(values, 99) == pytest.approx(39.7)
    assert percentile(values, 100) == 40
    assert percentile([7.0], 99) == 7
    assert percentile([], 50) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_is_never_outside_of_its_values(values: list[float], percent: float) -> None:
    assert min(values) <= percentile(values, percent) * (1 + 1e-12)
    assert percentile(values, percent) <= max(values) * (1 + 1e-12)


def test_the_figures_of_a_request() -> None:
    sample = Sample(10.0, (10.5, 10.75, 11.5), 11.5, prompt_tokens=4, completion_tokens=9)
    assert sample.first_token_seconds == 0.5
    assert sample.decode_rate == 8.0  # eight tokens came in the second after the first one
    assert sample.gaps == (0.25, 0.75)
    assert sample.gaps_within(10.75, 11.0) == (0.75,)
    assert sample.gaps_within(10.6, 12.0) == (0.25, 0.75)
    assert sample.gaps_within(11.5, 12.0) == ()


def test_one_token_has_no_rate() -> None:
    assert Sample(0.0, (1.0,), 1.0, 4, 1).decode_rate == 0
