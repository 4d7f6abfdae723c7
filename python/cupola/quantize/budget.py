"""Formats by a budget of bytes: which matrix gets how many bits, so that what is lost is least.

Each matrix has options, with the bytes they take and the loss they cost; losses add up. All begin with their smallest
option, and the steps that buy most for a byte are taken first, as far as the bytes suffice: with steps in the order of
falling gains (each matrix's options form a convex curve once those that no price would choose are left out), this is
what Lagrange's multiplier chooses, and then some of what is left over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cupola.quantize.formats import Format


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store a matrix."""

    format: Format
    size: int
    loss: float


def smallest(options: Mapping[str, Sequence[Option]]) -> int:
    """The least bytes in which all can be stored."""
    return sum(min(option.size for option in found) for found in options.values())


def choose(options: Mapping[str, Sequence[Option]], budget: int) -> dict[str, Option]:
    """One option a matrix, with at most `budget` bytes together; it must be at least `smallest(options)`."""
    curves = {name: _convex(found) for name, found in options.items()}
    chosen = {name: curve[0] for name, curve in curves.items()}
    left = budget - sum(option.size for option in chosen.values())
    steps = [
        ((before.loss - after.loss) / (after.size - before.size), name, after)
        for name, curve in curves.items()
        for before, after in pairwise(curve)
    ]
    for _, name, option in sorted(steps, key=lambda step: (-step[0], step[1])):
        price = option.size - chosen[name].size
        if price <= left:
            chosen[name], left = option, left - price
    return chosen


def _convex(options: Sequence[Option]) -> list[Option]:
    """By rising bytes, those that some price of a byte would choose; the smallest first."""
    curve: list[Option] = []
    for option in sorted(options, key=lambda option: (option.size, option.loss)):
        if curve and option.loss >= curve[-1].loss:
            continue
        while len(curve) > 1 and _gain(curve[-2], curve[-1]) <= _gain(curve[-1], option):
            curve.pop()
        curve.append(option)
    return curve


def _gain(before: Option, after: Option) -> float:
    return (before.loss - after.loss) / (after.size - before.size)
