"""Attention of single rows on matrix units: the query heads of one key-value head are the rows of a tile.

Keys and values go from memory straight to registers, 16 bytes a lane, 8 KB or more of a warp at one time: nobody else
wants them. The warps of a block take turns with 32 tokens of its part of the context and add up their sums in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, i32, let, select
from cupola.kernels.gpu.attention_fragments import STEP, TILES, Fragments, Words
from cupola.kernels.gpu.attention_lines import Source
from cupola.kernels.gpu.attention_softmax import LOG2E, Lane, Limits
from cupola.kernels.gpu.attention_spec import Attention, Parts, has_one_row
from cupola.kernels.gpu.attention_warp import CHUNK, CHUNK_WORDS, Warp, WarpUnit, words
from cupola.kernels.gpu.emit import Block, ceildiv, launch, registers, serial, shared, split, sync, u32
from cupola.kernels.gpu.matrix_unit import OUTPUTS, ROWS, SUMS, WARP

WARPS = 4
LOADS = 8  # of 16 bytes, that a lane waits for together


def parts_on_units(spec: Attention, unit: WarpUnit, t: dict[str, Span], b: Expr, p: Expr) -> None:
    """Launches a grid of parts of contexts; sequences of several rows have none."""
    heads = spec.pages.heads
    spans = -(-heads.group // ROWS)  # tiles of query heads of a key-value head
    with launch(WARPS * WARP, spec.slots(p, b), heads.keys * spans) as block:
        parts = Parts.of(spec, t, b)
        s = parts.sequence(block.x, b)
        index = let(block.x - parts.first_slot(s))
        first, stop = parts.seen(s)
        key_head, span = split(block.y, spans)
        count = -(-heads.group // spans)
        work = _Part(spec, block, t, s, parts, index, key_head, let(span * count), count)
        there = tirx.And(has_one_row(t, s), tirx.And(first <= index, index < stop))
        branch(let(there), lambda: work.run(unit.begin(block)))


@dataclass(frozen=True)
class _Part:
    """One part of the context of sequence s with some heads of a group: `count` from `first_head` on, or fewer."""

    spec: Attention
    block: Block
    arguments: dict[str, Span]
    s: Expr
    parts: Parts
    index: Expr
    key_head: Expr
    first_head: Expr
    count: int

    def run(self, warp: Warp) -> None:
        heads, t = self.spec.pages.heads, self.arguments
        lane, row = Lane.of(self.block.thread), t["q_indptr"].at(self.s)
        places = [let(row * heads.queries + self._head(let(lane.g + 8 * half))) for half in range(2)]
        first, second = (let(place * (heads.dim // 2)) for place in places)
        fragments = Fragments.of(warp, lane, heads.dim, self.spec.soft_cap, (words(t["q"]), first, second))
        fragments.init(None)
        seen = t["kv_len"].at(self.s)
        source = Source(self.spec, t, t["page_indptr"].at(self.s), self.key_head, seen)
        begin = let(self.index * self.parts.tokens)
        _Walk.begin(source, fragments).run(begin, let(begin + self.parts.tokens))
        self._gather(fragments)

    def _head(self, place: Expr) -> Expr:
        """The query head of a row of the tile, or another where there is none."""
        group = self.spec.pages.heads.group
        return let(self.key_head * group + tirx.min(self.first_head + place, i32(group - 1)))

    def _gather(self, fragments: Fragments) -> None:
        """Sums of all warps, on the scale of the block's largest scores, to the slot of this part."""
        dim, lane = self.spec.pages.heads.dim, fragments.lane
        states = shared(2 * WARPS * ROWS)  # largest scores, and sums of weights
        for half in range(2):
            total = fragments.total(half)
            at = let(lane.warp * ROWS + lane.g + 8 * half)

            def tell(half: int = half, at: Expr = at, total: Expr = total) -> None:
                states.put(at, fragments.state.at(half))
                states.put(let(at + WARPS * ROWS), total)

            branch(lane.t < 1, tell)
        sync()
        largest = [self._largest(states, let(lane.g + 8 * half)) for half in range(2)]
        factors = [_power(fragments.warp, fragments.state.at(half), largest[half]) for half in range(2)]
        fragments.scale((factors[0], factors[1]))
        sums = shared(self.count * dim)
        for warp in range(WARPS):
            branch(lane.warp == warp, lambda warp=warp: self._add(fragments, sums, first=warp == 0))  # type: ignore[misc]
            sync()
        self._store(fragments.warp, sums, states)

    def _largest(self, states: Span, row: Expr) -> Expr:
        found = states.at(row)
        for warp in range(1, WARPS):
            found = let(tirx.max(found, states.at(row + warp * ROWS)))
        return found

    def _add(self, fragments: Fragments, sums: Span, *, first: bool) -> None:
        """What this warp has, to what those before it had."""
        dim, lane = self.spec.pages.heads.dim, fragments.lane
        for half in range(2):
            row = let(lane.g + 8 * half)

            def add(half: int = half, row: Expr = row) -> None:
                for tile in range(dim // OUTPUTS):
                    for e in range(2):
                        at, mine = let(row * dim + lane.t * 2 + (tile * OUTPUTS + e)), tile * SUMS + 2 * half + e
                        value = fragments.sums.at(mine)
                        sums.put(at, value if first else let(sums.at(at) + value))

            if 8 * half < self.count:
                branch(row < self.count, add)

    def _store(self, warp: Warp, sums: Span, states: Span) -> None:
        heads, partials = self.spec.pages.heads, self.arguments["partials"]
        base, width = let(self.block.x * heads.queries + self.key_head * heads.group + self.first_head), heads.dim + 2
        there = let(heads.group - self.first_head)  # heads, of `count`

        def component(at: Expr) -> None:
            head, inside = split(at, heads.dim)
            branch(head < there, lambda: partials.put(let((base + head) * width + inside), sums.at(at)))

        def state(head: Expr) -> None:
            largest = self._largest(states, head)
            total = registers(1)
            for i in range(WARPS):
                at = let(head + i * ROWS)
                mine = let(states.at(at + WARPS * ROWS) * _power(warp, states.at(at), largest))
                total.put(0, mine if i == 0 else let(total.at(0) + mine))

            def store() -> None:
                partials.put(let((base + head) * width + heads.dim), largest)
                partials.put(let((base + head) * width + heads.dim + 1), total.at(0))

            branch(head < there, store)

        self.block.each(self.count * heads.dim, component)
        self.block.each(self.count, state)


@dataclass(frozen=True)
class _Walk:
    """A warp's way through a part of the context."""

    source: Source
    fragments: Fragments
    pages: Span  # words
    heads: Span  # int32 [2]: where the head begins in the pages of the keys and of the values of this lane

    @classmethod
    def begin(cls, source: Source, fragments: Fragments) -> _Walk:
        return cls(source, fragments, words(source.arguments["pages"]), registers(2, "int32"))

    def run(self, begin: Expr, stop: Expr) -> None:
        """Args: where the part begins and ends."""
        spec, seen, fragments = self.source.spec, self.source.seen, self.fragments
        round_ = WARPS * STEP  # tokens of all warps
        if spec.window:
            begin = let(begin + tirx.truncdiv(tirx.max(seen - spec.window - begin, i32(0)), i32(round_)) * round_)
        mine = let(begin + fragments.lane.warp * STEP)
        self._find(mine)
        with serial(ceildiv(let(tirx.min(stop, seen) - begin), round_)) as i:
            start = let(mine + i * round_)
            scores = fragments.score(self._keys(start), STEP, max(1, LOADS // TILES))
            edge = start + STEP > seen
            edge = let(tirx.Or(edge, start < seen - spec.window) if spec.window else edge)
            limits = Limits((seen, seen), spec.window)
            branch(edge, lambda: fragments.mask(scores, STEP, start, limits))
            weights = fragments.weights(scores, STEP)
            fragments.weigh(weights, self._values(start), STEP, LOADS, partial(self._hide, start))
            self._find(let(start + round_))

    def _find(self, start: Expr) -> None:
        """The pages of the tokens that this lane takes of 32, ahead of their use."""
        for i, position in enumerate((start + self.fragments.lane.key, start + self.fragments.lane.t * CHUNK)):
            self.heads.put(i, self.source.head(let(position))[0])

    def _keys(self, start: Expr) -> Callable[[int, int, int], Words]:
        pages, fragments = self.source.spec.pages, self.fragments
        _, token = split(let(start + fragments.lane.key), pages.page_size)
        first = pages.key(self.heads.at(0), 0, token)

        def load(_: int, j: int, step: int) -> Words:
            width = fragments.width(step)
            target = registers(width, "uint32")
            at = let(first + fragments.component(step) + 2 * j * pages.heads.dim)
            fragments.warp.fetch(self.pages, let(at >> i32(1)), target, range(width))
            return target, 0

        return load

    def _values(self, start: Expr) -> Callable[[int, int, int], Words]:
        pages, fragments = self.source.spec.pages, self.fragments
        position = let(start + fragments.lane.t * CHUNK)
        _, token = split(position, pages.page_size)
        first = pages.value(self.heads.at(1), fragments.lane.g, token)

        def load(_: int, tile: int, __: int) -> Words:
            target = registers(CHUNK_WORDS, "uint32")
            at = let(first + tile * OUTPUTS * pages.page_size)
            fragments.warp.fetch(self.pages, let(at >> i32(1)), target, range(CHUNK_WORDS))
            return target, 0

        return load

    def _hide(self, start: Expr, values: list[Words]) -> None:
        """Makes zeros of values that nobody sees: what lies there may be anything, and weights of 0 do not hide it."""
        seen = let(self.source.seen - start - self.fragments.lane.t * CHUNK)

        def hide() -> None:
            masks = [_mask(seen, 2 * word) for word in range(CHUNK_WORDS)]
            for target, at in values:
                for word, mask in enumerate(masks):
                    target.put(at + word, let(target.at(at + word) & mask))

        branch(start + STEP > self.source.seen, hide)


def _mask(seen: Expr, token: int) -> Expr:
    """The bits of two tokens of a lane's eight that are seen."""
    return select(seen > token + 1, u32(0xFFFFFFFF), select(seen > token, u32(0xFFFF), u32(0)))


def _power(warp: Warp, score: Expr, largest: Expr) -> Expr:
    """e^(score - largest)."""
    return warp.exp2(let(let(score - largest) * LOG2E))
