"""Sixteen queries of one key-value head, in the registers of a warp (FlashAttention-2: Dao, 2023).

A product does not care in which order it meets its inputs, as long as both sides agree. So lane 4 g + t takes 8
neighbours at once wherever the instruction's picture (`matrix_unit.py`) gives it two words here and two there:

    keys      of 32 components, lane t has 8 t to 8 t + 7, as of the queries: one move of 16 bytes for two products
    scores    of 32 tokens, the column c of tile j is the token 8 (c / 2) + 2 j + c % 2; so a lane's scores of row g are
              those of tokens 8 t to 8 t + 7, and, rounded, they are the inputs of the next product as they stand
    values    lie transposed, and of a component's tokens lane t has those 8

Weights are powers of two of scores times log2(e). Masked scores are below any largest score, which begins above them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, f32, i32, let, select
from cupola.kernels.gpu.attention_warp import CHUNK_WORDS, Warp
from cupola.kernels.gpu.emit import MASKED, registers, split, zero
from cupola.kernels.gpu.functions import soft_cap
from cupola.kernels.gpu.matrix_unit import A_WORDS, INPUTS, OUTPUTS, ROWS, SUMS, WARP

STEP = 32  # components, or tokens, that a quad moves 16 bytes of each
TILES = STEP // OUTPUTS
LOWEST = MASKED / 100  # the largest score of a query that has seen nothing
LOG2E = math.log2(math.e)

Words = tuple[Span, int]  # registers, and where in them
Load = Callable[[int, int, int], Words]  # (step of 32 tokens, tile or place in it, step of 32 components) -> words


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
class Fragments:
    """The queries, what they found so far, and the warp that computes it.

    Args:
        dim: components of keys and values, a multiple of 16.
        queries: words of queries, and where those of rows g and g + 8 begin.
        kept: queries stay in registers; otherwise they come anew whenever they are needed, from the nearest cache.
    """

    warp: Warp
    lane: Lane
    dim: int
    cap: float
    queries: tuple[Span, Expr, Expr]
    kept: bool
    q: Span  # uint32 [dim / 16, A_WORDS], or of one step
    sums: Span  # float32 [dim / 8, SUMS]
    state: Span  # float32 [4]: largest scores of rows g and g + 8, then this lane's share of the sums of weights

    @classmethod
    def begin(
        cls, warp: Warp, lane: Lane, dim: int, cap: float, queries: tuple[Span, Expr, Expr], *, kept: bool = True
    ) -> Fragments:
        q = registers((dim if kept else STEP) // INPUTS * A_WORDS, "uint32")
        sums = registers(dim // OUTPUTS * SUMS, fill=zero())
        found = cls(warp, lane, dim, cap, queries, kept, q, sums, registers(4))
        if kept:
            for step in range(found.steps):
                found._load_queries(step, 2 * step * A_WORDS)
        return found

    @property
    def steps(self) -> int:
        """Of components."""
        return -(-self.dim // STEP)

    def width(self, step: int) -> int:
        """Words that a lane has of a step of components."""
        return min(CHUNK_WORDS, (self.dim - step * STEP) // OUTPUTS)

    def component(self, step: int) -> Expr:
        """The first of the components that a lane has of a step."""
        return let(self.lane.t * (2 * self.width(step)) + step * STEP)

    def init(self, sinks: tuple[Expr, Expr] | None) -> None:
        """Before the first token. `sinks` are logits that have no value."""
        for half in range(2):
            self.state.put(half, f32(LOWEST) if sinks is None else sinks[half])
            first = select(self.lane.t < 1, f32(1.0), zero())  # of the quad: shares are summed in the end
            self.state.put(2 + half, zero() if sinks is None else first)

    def score(self, keys: Load, tokens: int, together: int) -> Span:
        """Scores of so many tokens: float32 [tokens / 8, SUMS].

        Args:
            together: steps of components whose keys are loaded before they are multiplied.
        """
        scores = registers(tokens // OUTPUTS * SUMS, fill=zero())
        for first in range(0, self.steps, together):
            steps = range(first, min(first + together, self.steps))
            loaded = {(step, j): keys(j // TILES, j % TILES, step) for step in steps for j in range(tokens // OUTPUTS)}
            for step in steps:
                mine = self._queries(step)
                for part in range(self.width(step) // 2):
                    for j in range(tokens // OUTPUTS):
                        span, at = loaded[step, j]
                        self.warp.multiply(self.q, mine + part * A_WORDS, span, at + 2 * part, scores, j * SUMS)
        if self.cap:
            for i in range(tokens // OUTPUTS * SUMS):
                scores.put(i, soft_cap(scores.at(i), self.cap))
        return scores

    def mask(self, scores: Span, tokens: int, start: Expr, limits: Limits) -> None:
        """Hides what queries do not see of the tokens from `start` on."""
        for half in range(2):
            rest = let(limits.stop[half] - start - self.lane.t * 8)
            for j in range(tokens // OUTPUTS):
                for e in range(2):
                    inside, at = j // TILES * STEP + j % TILES * 2 + e, j * SUMS + 2 * half + e
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

    def weigh(
        self,
        weights: Span,
        values: Load,
        tokens: int,
        together: int,
        ready: Callable[[list[Words]], None] | None = None,
    ) -> None:
        """Adds values by their weights. `values` is asked for (step of tokens, tile of components, 0).

        Args:
            together: tiles of components whose values are loaded before they are multiplied.
            ready: called with these.
        """
        tiles, steps = self.dim // OUTPUTS, tokens // STEP
        for first in range(0, tiles, together):
            mine = range(first, min(first + together, tiles))
            loaded = {(u, n): values(u, n, 0) for n in mine for u in range(steps)}
            if ready is not None:
                ready(list(loaded.values()))
            for u in range(steps):
                for part in range(2):
                    for n in mine:
                        span, at = loaded[u, n]
                        self.warp.multiply(weights, (2 * u + part) * A_WORDS, span, at + 2 * part, self.sums, n * SUMS)

    def total(self, half: int) -> Expr:
        """The sum of the weights of row g, or of g + 8."""
        return self.warp.quad_sum(self.state.at(2 + half))

    def scale(self, factors: tuple[Expr, Expr]) -> None:
        """Multiplies the sums of rows g and g + 8."""
        for i in range(self.dim // OUTPUTS * SUMS):
            self.sums.put(i, let(self.sums.at(i) * factors[i % SUMS // 2]))

    def _queries(self, step: int) -> int:
        """Where the words of a step are, which are loaded first where none are kept."""
        if self.kept:
            return 2 * step * A_WORDS
        self._load_queries(step, 0)
        return 0

    def _load_queries(self, step: int, to: int) -> None:
        source, *starts = self.queries
        inside = self.component(step) >> i32(1)
        for half, start in enumerate(starts):
            places = [to + half + 2 * word for word in range(self.width(step))]
            self.warp.fetch(source, let(start + inside), self.q, places)

    def _rescale(self, first: Expr, second: Expr) -> None:
        """Where a larger score came, which is rare behind the first tokens."""
        changed = let(tirx.Or(first < f32(1.0), second < f32(1.0)))
        branch(self.warp.any(changed), lambda: self.scale((first, second)))


def rows_of(lane: Lane) -> tuple[Expr, Expr]:
    """The two queries of a lane, among those of all warps of the block."""
    first = let(lane.warp * ROWS + lane.g)
    return first, let(first + 8)
