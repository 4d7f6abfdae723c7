"""Sixteen queries of one key-value head, in the registers of a warp (FlashAttention-2: Dao, 2023).

A product does not care in which order it meets its inputs, as long as both sides agree. So lane 4 g + t takes 8
neighbours at once wherever the instruction's picture (`matrix_unit.py`) gives it two words here and two there:

    keys      of 32 components, lane t has 8 t to 8 t + 7, as of the queries: one move of 16 bytes for two products
    scores    of 32 tokens, the column c of tile j is the token 8 (c / 2) + 2 j + c % 2; so a lane's scores of row g are
              those of tokens 8 t to 8 t + 7, and, rounded, they are the inputs of the next product as they stand
    values    lie transposed, and of a component's tokens lane t has those 8
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cupola.kernels.emit import Expr, Span, i32, let
from cupola.kernels.gpu.attention_softmax import Lane, Limits, Softmax
from cupola.kernels.gpu.attention_warp import CHUNK_WORDS, Warp
from cupola.kernels.gpu.emit import registers, zero
from cupola.kernels.gpu.functions import soft_cap
from cupola.kernels.gpu.matrix_unit import A_WORDS, INPUTS, OUTPUTS, ROWS, SUMS

STEP = 32  # components, or tokens, that a quad moves 16 bytes of each
TILES = STEP // OUTPUTS

Words = tuple[Span, int]  # registers, and where in them
Load = Callable[[int, int, int], Words]  # (step of 32 tokens, tile or place in it, step of 32 components) -> words


@dataclass(frozen=True)
class Fragments(Softmax):
    """The queries, and what they found so far.

    Args:
        dim: components of keys and values, a multiple of 16.
        queries: words of queries, and where those of rows g and g + 8 begin.
        kept: queries stay in registers; otherwise they come anew whenever they are needed, from the nearest cache.
    """

    cap: float
    queries: tuple[Span, Expr, Expr]
    kept: bool
    q: Span  # uint32 [dim / 16, A_WORDS], or of one step

    @classmethod
    def of(
        cls, warp: Warp, lane: Lane, dim: int, cap: float, queries: tuple[Span, Expr, Expr], *, kept: bool = True
    ) -> Fragments:
        q = registers((dim if kept else STEP) // INPUTS * A_WORDS, "uint32")
        base = Softmax.begin(warp, lane, dim)
        found = cls(warp, lane, dim, base.sums, base.state, cap, queries, kept, q)
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
        first = let(start + self.lane.t * 8)
        self.hide(scores, tokens, first, limits, lambda j: j // TILES * STEP + j % TILES * 2)

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


def rows_of(lane: Lane) -> tuple[Expr, Expr]:
    """The two queries of a lane, among those of all warps of the block."""
    first = let(lane.warp * ROWS + lane.g)
    return first, let(first + 8)
