"""Medians, percentiles and ratios of rounds. Plain numbers in, plain numbers out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some rounds: a median alone hides a busy machine."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def scaled(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(self.median * factor, self.least * factor, self.greatest * factor)


def ratios(first: Sequence[float], second: Sequence[float]) -> Spread | None:
    """The spread of first / second, round by round: what slows a round down slows both sides of its ratio.

    Rounds in which the second is 0 tell nothing and are left out; None if no other is there.
    """
    quotients = [a / b for a, b in zip(first, second, strict=True) if b]
    return Spread.of(quotients) if quotients else None


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
