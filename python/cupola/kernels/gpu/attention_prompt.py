"""Attention of prompts on matrix units: tiles of rows times query heads of one key-value head.

All warps of a block share the keys and values of a block of tokens, copied to memory of the block while products run:
the values during scores, the next block's keys during sums. Tiles at the ends of prompts, which see most, begin first.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Index, Span, branch, i32, let
from cupola.kernels.gpu.attention_fragments import STEP, Fragments, rows_of
from cupola.kernels.gpu.attention_lines import BlockCopies, Source
from cupola.kernels.gpu.attention_softmax import Lane, Limits
from cupola.kernels.gpu.attention_spec import Attention, sink_of
from cupola.kernels.gpu.attention_warp import Warp, WarpUnit, words
from cupola.kernels.gpu.emit import Block, ceildiv, last_beginning, launch, serial, slots, split, sync
from cupola.kernels.gpu.matrix_unit import OUTPUTS, ROWS, SUMS, WARP

MOST_KEPT = 192  # components up to which there are registers for queries


@dataclass(frozen=True)
class PromptTile:
    """How large tiles are.

    Args:
        heads: query heads, of `spans` tiles for each key-value head; the last of these may have fewer.
        tokens: of a block of the context.
    """

    warps: int
    heads: int
    spans: int
    tokens: int

    @classmethod
    def of(cls, spec: Attention) -> PromptTile:
        """What registers and memory allow: sums take as many registers as there are components."""
        dim = spec.pages.heads.dim
        warps, tokens = (8, STEP) if dim <= 64 else (8, 2 * STEP) if dim <= 128 else (4, STEP)
        return cls.sized(spec, warps, tokens)

    @classmethod
    def sized(cls, spec: Attention, warps: int, tokens: int) -> PromptTile:
        group = spec.pages.heads.group
        spans = -(-group // (warps * ROWS))
        return cls(warps, -(-group // spans), spans, tokens)

    @property
    def rows(self) -> int:
        """Of the prompt."""
        return self.warps * ROWS // self.heads


def tiles_on_units(
    spec: Attention, unit: WarpUnit, t: dict[str, Span], n: Expr, b: Expr, tile: PromptTile | None = None
) -> None:
    """Launches a grid of tiles; sequences of one row have none."""
    tile = PromptTile.of(spec) if tile is None else tile
    q_indptr, count = t["q_indptr"], slots(n, b, tile.rows)
    with launch(tile.warps * WARP, count, spec.pages.heads.keys * tile.spans) as block:
        slot = let(count - 1 - block.x)
        s = last_beginning(slot, b, lambda s: let(slots(q_indptr.at(s), s, tile.rows)))
        begin = q_indptr.at(s)
        rows = let(q_indptr.at(s + 1) - begin)
        skipped = let((slot - slots(begin, s, tile.rows)) * tile.rows)
        key_head, span = split(block.y, tile.spans)
        work = _Prompt(spec, tile, block, t, s, begin, rows, skipped, key_head, let(span * tile.heads))
        branch(let(tirx.And(skipped < rows, rows > 1)), lambda: work.run(unit.begin(block)))


@dataclass(frozen=True)
class _Query:
    """Of a tile: a row of the prompt and a query head, or, where there is no such, others in their place."""

    row: Expr
    head: Expr
    there: Expr


@dataclass(frozen=True)
class _Prompt:
    """One tile at work: the rows of sequence s from `skipped` on, of `rows`, which begin at row `begin` of the step,
    with the heads of a group from `first_head` on."""

    spec: Attention
    tile: PromptTile
    block: Block
    arguments: dict[str, Span]
    s: Expr
    begin: Expr
    rows: Expr
    skipped: Expr
    key_head: Expr
    first_head: Expr

    def run(self, warp: Warp) -> None:
        heads, t = self.spec.pages.heads, self.arguments
        lane = Lane.of(self.block.thread)
        first, second = (self._query(place) for place in rows_of(lane))
        starts = (self._start(first), self._start(second))
        queries, kept = (words(t["q"]), *starts), heads.dim <= MOST_KEPT
        fragments = Fragments.of(warp, lane, heads.dim, self.spec.soft_cap, queries, kept=kept)
        sink = sink_of(self.spec, t)
        fragments.init(None if sink is None else (sink(first.head), sink(second.head)))
        ahead = let(t["kv_len"].at(self.s) - self.rows)  # tokens of the context, of these rows
        limits = Limits((let(ahead + first.row + 1), let(ahead + second.row + 1)), self.spec.window)
        self._walk(fragments, limits, let(ahead + self.skipped + 1), self._seen(ahead))
        self._store(fragments, (first, second), starts)

    def _seen(self, ahead: Expr) -> Expr:
        return let(ahead + tirx.min(self.skipped + self.tile.rows, self.rows))

    def _walk(self, fragments: Fragments, limits: Limits, first_seen: Expr, seen: Expr) -> None:
        """Through the context, as far as some row sees it."""
        tokens, window, warp = self.tile.tokens, self.spec.window, fragments.warp
        source = Source(self.spec, self.arguments, self.arguments["page_indptr"].at(self.s), self.key_head, seen)
        copies = BlockCopies.begin(source, tokens, self.block, warp)
        keys, values = copies.readers(fragments)
        first: Index = let(tirx.truncdiv(tirx.max(first_seen - window, i32(0)), i32(tokens))) if window else i32(0)
        copies.copy_keys(let(first * tokens))
        with serial(ceildiv(seen, tokens) - first) as i:
            start = let((first + i) * tokens)
            warp.arrived()
            sync()
            copies.copy_values(start)
            scores = fragments.score(keys, tokens, 1)
            edge = start + tokens > first_seen
            edge = let(tirx.Or(edge, start < seen - window) if window else edge)
            branch(edge, lambda: fragments.mask(scores, tokens, start, limits))
            weights = fragments.weights(scores, tokens)
            warp.arrived()
            sync()
            branch(let(start + tokens < seen), lambda: copies.copy_keys(let(start + tokens)))
            fragments.weigh(weights, values, tokens, 16)

    def _query(self, place: Expr) -> _Query:
        tile, group = self.tile, self.spec.pages.heads.group
        row, head = split(place, tile.heads)
        mine, inside = let(self.skipped + row), let(self.first_head + head)
        there = let(tirx.And(tirx.And(row < tile.rows, mine < self.rows), inside < group))
        head = let(self.key_head * group + tirx.min(inside, i32(group - 1)))
        return _Query(let(tirx.min(mine, self.rows - 1)), head, there)

    def _start(self, query: _Query) -> Expr:
        """Where a query, and its result, begins, in words."""
        heads = self.spec.pages.heads
        return let(((self.begin + query.row) * heads.queries + query.head) * (heads.dim // 2))

    def _store(self, fragments: Fragments, queries: tuple[_Query, _Query], starts: tuple[Expr, Expr]) -> None:
        y, dim = words(self.arguments["y"]), self.spec.pages.heads.dim
        factors = [let(1.0 / fragments.total(half)) for half in range(2)]
        fragments.scale((factors[0], factors[1]))
        for half, query in enumerate(queries):

            def store(half: int = half) -> None:
                for tile in range(dim // OUTPUTS):
                    at = tile * SUMS + 2 * half
                    word = fragments.warp.pair(fragments.sums.at(at), fragments.sums.at(at + 1))
                    y.put(let(starts[half] + fragments.lane.t + tile * (OUTPUTS // 2)), word)

            branch(query.there, store)
