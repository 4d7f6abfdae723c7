"""Softmax of a warp's sixteen queries as their scores come, in the registers that products leave them in.

Of lane 4 g + t, sums are those of rows g and g + 8 (`matrix_unit.py`): a row's lie in a quad. Weights are powers of two
of scores times log2(e) (Milakov and Gimelshein, 2018; Dao, 2023). Masked scores are below any largest score, which
begins above them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, f32, i32, let, select
from cupola.kernels.gpu.attention_warp import Warp
from cupola.kernels.gpu.emit import MASKED, registers, split, zero
from cupola.kernels.gpu.matrix_unit import A_WORDS, INPUTS, OUTPUTS, SUMS, WARP

LOWEST = MASKED / 100  # the largest score of a query that has seen nothing
LOG2E = math.log2(math.e)


@dataclass(frozen=True)
class Lane:
    """Where a thread is: its warp in the block, and 4 g + t in the warp."""

    warp: Expr
    g: Expr
    t: Expr

    @classmethod
    def of(cls, thread: Expr) -> Lane:
        warp, lane = split(thread, WARP)
        g, t = split(lane, 4)
        return cls(warp, g, t)

    @property
    def key(self) -> Expr:
        """The token of this lane's keys among 32, for the first tile; two more for each further one."""
        return let((self.g >> i32(1)) * 8 + (self.g & i32(1)))


@dataclass(frozen=True)
class Limits:
    """What the two queries of a lane (rows g and g + 8) see: tokens before `stop`, and, with a window, as many."""

    stop: tuple[Expr, Expr]
    window: int


@dataclass(frozen=True)
class Softmax:
    """What queries found so far, and the warp that computes it.

    Args:
        dim: components of values that this warp sums.
    """

    warp: Warp
    lane: Lane
    dim: int
    sums: Span  # float32 [dim / 8, SUMS]
    state: Span  # float32 [4]: largest scores of rows g and g + 8, then this lane's share of the sums of weights

    @classmethod
    def begin(cls, warp: Warp, lane: Lane, dim: int) -> Softmax:
        return Softmax(warp, lane, dim, registers(dim // OUTPUTS * SUMS, fill=zero()), registers(4))

    def init(self, sinks: tuple[Expr, Expr] | None) -> None:
        """Before the first token. `sinks` are logits that have no value."""
        for half in range(2):
            self.state.put(half, f32(LOWEST) if sinks is None else sinks[half])
            first = select(self.lane.t < 1, f32(1.0), zero())  # of the quad: shares are summed in the end
            self.state.put(2 + half, zero() if sinks is None else first)

    def hide(self, scores: Span, tokens: int, first: Expr, limits: Limits, inside_of: Callable[[int], int]) -> None:
        """Hides what queries do not see.

        Args:
            first: the token of which this lane's first score is.
            inside_of: how far behind it those of a tile begin.
        """
        for half in range(2):
            rest = let(limits.stop[half] - first)
            for j in range(tokens // OUTPUTS):
                for e in range(2):
                    inside, at = inside_of(j) + e, j * SUMS + 2 * half + e
                    seen = rest > inside
                    if limits.window:
                        seen = tirx.And(seen, rest <= inside + limits.window)
                    scores.put(at, select(let(seen), scores.at(at), f32(MASKED)))

    def weights(self, scores: Span, tokens: int) -> Span:
        """Scores become weights, rounded: uint32 [tokens / 16, A_WORDS]; the state that of all tokens so far."""
        rounded, factors = registers(tokens // INPUTS * A_WORDS, "uint32"), []
        for half in range(2):
            mine = [j * SUMS + 2 * half + e for j in range(tokens // OUTPUTS) for e in range(2)]
            before = self.state.at(half)
            largest = before
            for at in mine:
                largest = let(tirx.max(largest, scores.at(at)))
            largest = self.warp.quad_max(largest)
            base = let(largest * f32(LOG2E))
            # Not of products, whose rounding would not cancel where nothing was seen yet.
            factors.append(self.warp.exp2(let(let(before - largest) * f32(LOG2E))))
            total = let(self.state.at(2 + half) * factors[half])
            for at in mine:
                weight = self.warp.exp2(let(scores.at(at) * f32(LOG2E) - base))
                scores.put(at, weight)
                total = let(total + weight)
            self.state.put(half, largest)
            self.state.put(2 + half, total)
            for j in range(tokens // OUTPUTS):
                at = j * SUMS + 2 * half
                rounded.put(j * 2 + half, self.warp.pair(scores.at(at), scores.at(at + 1)))
        self._rescale(factors[0], factors[1])
        return rounded

    def total(self, half: int) -> Expr:
        """The sum of the weights of row g, or of g + 8."""
        return self.warp.quad_sum(self.state.at(2 + half))

    def scale(self, factors: tuple[Expr, Expr]) -> None:
        """Multiplies the sums of rows g and g + 8."""
        for i in range(self.dim // OUTPUTS * SUMS):
            self.sums.put(i, let(self.sums.at(i) * factors[i % SUMS // 2]))

    def _rescale(self, first: Expr, second: Expr) -> None:
        """Where a larger score came, which is rare behind the first tokens."""
        changed = let(tirx.Or(first < f32(1.0), second < f32(1.0)))
        branch(self.warp.any(changed), lambda: self.scale((first, second)))
