"""Scales and minima of few bits: a search for those with the least squared error, group by group.

A group's weights w are to become scale * q + minimum with whole q in 0..levels. For given q, the best scale and minimum
are those of a line through (q, w), by least squares; for a given scale and minimum the best q are the nearest. Doing
the one after the other, the error falls and soon stays, in a minimum that depends on the beginning. So there are
several: the whole range, a narrower one, which clips the outermost weights and serves the others better, and then the
best so far with its scale a little off.

Groups lie in columns here, so that what is one number a group is a vector beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cupola.quantize.formats import Q3_PARTS

Line = tuple[np.ndarray, np.ndarray]  # scale and minimum of each group, float32


@dataclass(frozen=True, slots=True)
class Grid:
    """The lines that a format has, and how they are looked for.

    Args:
        levels: the largest code.
        rounded: a line -> the nearest that the format can store.
        with_zero: 0 must lie within a group's range.
        ranges: shares of a group's range to begin with.
        nudges: factors on the best scale to begin with again.
        refinements: how often a line is fitted after the one and after the other beginning.
    """

    levels: int
    rounded: Callable[[np.ndarray, np.ndarray], Line]
    with_zero: bool
    ranges: tuple[float, ...]
    nudges: tuple[float, ...]
    refinements: tuple[int, int]


def _in_float16(scale: np.ndarray, minimum: np.ndarray) -> Line:
    return scale.astype(np.float16).astype(np.float32), minimum.astype(np.float16).astype(np.float32)


def _in_parts_of_a_step(scale: np.ndarray, minimum: np.ndarray) -> Line:
    scale = scale.astype(np.float16).astype(np.float32)
    return scale, zeros_of(scale, minimum).astype(np.float32) * (scale / -Q3_PARTS)


def zeros_of(scale: np.ndarray, minimum: np.ndarray) -> np.ndarray:
    """Minima as the code of 0 in 32nds of a step: uint8."""
    return np.clip(np.rint(minimum * (inverse(scale) * -Q3_PARTS)), 0, 255).astype(np.uint8)


Q4_GRID = Grid(15, _in_float16, False, ranges=(1.0, 0.9), nudges=(0.97, 1.03), refinements=(1, 2))
Q3_GRID = Grid(7, _in_parts_of_a_step, True, ranges=(1.0, 0.85), nudges=(0.92, 1.08), refinements=(2, 2))


def search(weights: np.ndarray, importance: np.ndarray | None, grid: Grid) -> Line:
    """The lines with the least sum of importance * (weight - what is stored)^2 that are found.

    Args:
        weights: float32 [32, groups].
        importance: float32 [32, groups], not negative; None: all weights count the same.
    """
    low, high = weights.min(axis=0), weights.max(axis=0)
    if grid.with_zero:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    centre, reach = (low + high) / 2, high - low
    found = _Best(weights, importance, grid)
    before, after = grid.refinements
    for share in grid.ranges:
        line = grid.rounded(reach * np.float32(share / grid.levels), centre - reach * np.float32(share / 2))
        found.descend(line, before)
    middle = grid.levels / 2
    for nudge in grid.nudges:
        scale = found.scale * np.float32(nudge)
        line = grid.rounded(scale, found.minimum + np.float32(middle) * (found.scale - scale))
        found.descend(line, after)
    return found.scale, found.minimum


def nearest(weights: np.ndarray, scale: np.ndarray, minimum: np.ndarray, levels: int) -> np.ndarray:
    """The codes, as float32 [32, groups], that come closest to weights of the same shape."""
    factor = inverse(scale)
    codes = weights * factor
    codes -= minimum * factor
    np.rint(codes, out=codes)
    return np.clip(codes, 0, levels, out=codes)


def inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale as float32, and 0 where the scale is 0 (a group of equal or vanishing weights)."""
    wide = scale.astype(np.float32, copy=False)
    return np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)


@dataclass
class _Best:
    """The best line of each group so far; the first one stands even where it is not finite."""

    weights: np.ndarray
    importance: np.ndarray | None
    grid: Grid
    scale: np.ndarray = field(init=False)
    minimum: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        w, h = self.weights, self.importance
        weighted = w if h is None else w * h
        self._count = np.float32(len(w)) if h is None else np.maximum(h.sum(axis=0), np.finfo(np.float32).tiny)
        self._sum, self._squares = weighted.sum(axis=0), np.einsum("ig,ig->g", weighted, w)
        self._error = np.full(w.shape[1], np.inf, np.float32)
        self.scale = self.minimum = np.zeros(0, np.float32)

    def descend(self, line: Line, refinements: int) -> None:
        """Takes a line, and those that follow from it by turns of rounding and fitting."""
        for _ in range(refinements):
            line = self.grid.rounded(*self._fitted(*line))
        self._fitted(*line)

    def _fitted(self, scale: np.ndarray, minimum: np.ndarray) -> Line:
        """Keeps the line where it is better, and fits another to its codes."""
        codes = nearest(self.weights, scale, minimum, self.grid.levels)
        weighted = codes if self.importance is None else codes * self.importance
        first, second = weighted.sum(axis=0), np.einsum("ig,ig->g", weighted, codes)
        mixed = np.einsum("ig,ig->g", weighted, self.weights)
        error = scale * (scale * second + 2 * (minimum * first - mixed))
        error += minimum * (self._count * minimum - 2 * self._sum) + self._squares
        if len(self.scale) == 0:
            self.scale, self.minimum = scale, minimum
        better = error < self._error
        self.scale = np.where(better, scale, self.scale)
        self.minimum = np.where(better, minimum, self.minimum)
        self._error = np.where(better, error, self._error)
        spread = second - first * first / self._count
        slope = np.divide(mixed - first * self._sum / self._count, spread, out=scale.copy(), where=spread > 0)
        return slope, (self._sum - slope * first) / self._count
