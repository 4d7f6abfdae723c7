"""Attention over latents on matrix units: 16 queries, whose heads all see the same rows (DeepSeek-AI, 2024).

A latent is key and value at once, and lies in pages as [components][tokens]; so it does in memory of the block, where
`ldmatrix` gives both fragments: transposed those of keys, and as they lie those of values. Sums over 512 components
for 16 queries would fill the registers of a warp, so its warps share them: each adds up a part of every score, they
exchange these, and each weighs the values of its own components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, i32, let
from cupola.kernels.gpu.attention_fragments import STEP
from cupola.kernels.gpu.attention_softmax import Lane, Limits, Softmax
from cupola.kernels.gpu.attention_spec import Attention, Parts, has_one_row
from cupola.kernels.gpu.attention_warp import CHUNK, CHUNK_BYTES, CHUNK_WORDS, Warp, WarpUnit, words
from cupola.kernels.gpu.emit import (
    Block,
    ceildiv,
    last_beginning,
    launch,
    registers,
    serial,
    shared,
    slots,
    split,
    sync,
    u32,
    zero,
)
from cupola.kernels.gpu.matrix_unit import A_WORDS, INPUTS, OUTPUTS, ROWS, SUMS, WARP

WARPS = 4
CHUNKS = STEP // CHUNK  # of a line: 32 tokens of a component
TILES = STEP // OUTPUTS
MOST_BYTES = 40960  # of the latents of 32 tokens


def fits_units(spec: Attention, warps: int = WARPS) -> bool:
    """Whether these latents can be attended to so."""
    pages = spec.pages
    plain = not (spec.window or spec.soft_cap or spec.sinks)
    stored = pages.dtype in ("float16", "uint16") and pages.dtype == spec.dtype
    whole = pages.heads.dim % (warps * INPUTS) == 0 and pages.key_dim % INPUTS == 0 and pages.page_size % CHUNK == 0
    return plain and stored and whole and pages.key_dim * CHUNKS * CHUNK_BYTES <= MOST_BYTES


@dataclass(frozen=True)
class _Heads:
    """A tile's queries: rows times `count` heads, of `spans` tiles for each row."""

    count: int
    spans: int

    @classmethod
    def of(cls, queries: int) -> _Heads:
        spans = -(-queries // ROWS)
        return cls(-(-queries // spans), spans)

    @property
    def rows(self) -> int:
        return ROWS // self.count


def latent_tiles(spec: Attention, unit: WarpUnit, t: dict[str, Span], n: Expr, b: Expr, warps: int = WARPS) -> None:
    """Launches a grid of tiles of rows; sequences of one row have none."""
    heads = _Heads.of(spec.pages.heads.queries)
    q_indptr, count = t["q_indptr"], slots(n, b, heads.rows)
    with launch(warps * WARP, count, heads.spans) as block:
        slot = let(count - 1 - block.x)
        s = last_beginning(slot, b, lambda s: let(slots(q_indptr.at(s), s, heads.rows)))
        begin = q_indptr.at(s)
        rows = let(q_indptr.at(s + 1) - begin)
        skipped = let((slot - slots(begin, s, heads.rows)) * heads.rows)

        def run() -> None:
            mine = let(tirx.min(rows - skipped, i32(heads.rows)))
            first_seen = let(t["kv_len"].at(s) - rows + skipped + 1)
            tile = _Tile(spec, heads, warps, block, t, s, let(begin + skipped), mine, first_seen)
            work = tile.begin(unit.begin(block))
            work.walk(i32(0), tile.seen)
            work.store_rows()

        branch(let(tirx.And(skipped < rows, rows > 1)), run)


def latent_parts(spec: Attention, unit: WarpUnit, t: dict[str, Span], b: Expr, p: Expr, warps: int = WARPS) -> None:
    """Launches a grid of parts of contexts; sequences of several rows have none."""
    heads = _Heads.of(spec.pages.heads.queries)
    with launch(warps * WARP, spec.slots(p, b), heads.spans) as block:
        parts = Parts.of(spec, t, b)
        s = parts.sequence(block.x, b)
        index = let(block.x - parts.first_slot(s))
        first, stop = parts.seen(s)

        def run() -> None:
            tile = _Tile(spec, heads, warps, block, t, s, t["q_indptr"].at(s), i32(1), t["kv_len"].at(s))
            work = tile.begin(unit.begin(block))
            start = let(index * parts.tokens)
            work.walk(start, let(tirx.min(start + parts.tokens, tile.seen)))
            work.store_partials()

        branch(let(tirx.And(has_one_row(t, s), tirx.And(first <= index, index < stop))), run)


@dataclass(frozen=True)
class _Tile:
    """Whose tile it is: `rows` rows of sequence s from `first_row` on; the first sees `first_seen` tokens."""

    spec: Attention
    heads: _Heads
    warps: int
    block: Block
    arguments: dict[str, Span]
    s: Expr
    first_row: Expr
    rows: Expr
    first_seen: Expr

    @property
    def seen(self) -> Expr:
        return let(self.first_seen + self.rows - 1)

    def query(self, place: Expr) -> tuple[Expr, Expr, Expr]:
        """(row of the tile, head, whether there is such a query; where not, others stand in its place)."""
        row, head = split(place, self.heads.count)
        index, most = let(self.block.y * self.heads.count + head), self.spec.pages.heads.queries - 1
        there = let(tirx.And(row < self.rows, index <= most))
        return let(tirx.min(row, self.rows - 1)), let(tirx.min(index, i32(most))), there

    def begin(self, warp: Warp) -> _Work:
        lane, pages = Lane.of(self.block.thread), self.spec.pages
        softmax = Softmax.begin(warp, lane, pages.heads.dim // self.warps)
        softmax.init(None)
        memory = shared(pages.key_dim * CHUNKS * CHUNK_WORDS, "uint32")
        exchanged = shared(self.warps * TILES * SUMS * WARP)
        work = _Work(self, warp, lane, softmax, memory, exchanged, registers(self.steps * A_WORDS, "uint32"))
        work.load_queries()
        return work

    @property
    def steps(self) -> int:
        """Of 16 components, that each warp has of every key."""
        return -(-self.spec.pages.key_dim // (self.warps * INPUTS))


@dataclass(frozen=True)
class _Work:
    """A tile at work."""

    tile: _Tile
    warp: Warp
    lane: Lane
    softmax: Softmax
    memory: Span  # words: [components, chunks of 8 tokens]
    exchanged: Span  # float32 [warps, sums, lanes]
    q: Span  # uint32 [steps, A_WORDS]

    def load_queries(self) -> None:
        """What lies behind the components of a value is in r; where a warp has less than others, zeros."""
        tile, heads, zeros = self.tile, self.tile.spec.pages.heads, u32(0)
        rest = tile.spec.pages.key_dim - heads.dim
        places = [tile.query(let(self.lane.g + 8 * half))[:2] for half in range(2)]
        rows = [let((tile.first_row + row) * heads.queries + head) for row, head in places]
        q, r = (words(tile.arguments[name]) for name in ("q", "r"))
        for step in range(tile.steps):
            first = let((self.lane.warp * tile.steps + step) * INPUTS)
            for part in range(A_WORDS):
                row, component = rows[part % 2], let(first + self.lane.t * 2 + part // 2 * 8)
                to = step * A_WORDS + part

                def of_q(row: Expr = row, component: Expr = component, to: int = to) -> None:
                    self.q.put(to, q.at(let((row * heads.dim + component) >> i32(1))))

                def of_r(row: Expr = row, component: Expr = component, to: int = to) -> None:
                    self.q.put(to, r.at(let((row * rest + (component - heads.dim)) >> i32(1))))

                self.q.put(to, zeros)
                branch(first < heads.dim, of_q)
                branch(let(tirx.And(first >= heads.dim, first < heads.dim + rest)), of_r)

    def walk(self, begin: Expr, stop: Expr) -> None:
        """Through the context from one token up to another."""
        tile = self.tile
        queries = [tile.query(let(self.lane.g + 8 * half))[0] for half in range(2)]
        limits = Limits((let(tile.first_seen + queries[0]), let(tile.first_seen + queries[1])), tile.spec.window)
        with serial(ceildiv(let(stop - begin), STEP)) as i:
            start = let(begin + i * STEP)
            sync()
            self._copy(start)
            self.warp.arrived()
            sync()
            scores = self._score()
            branch(start + STEP > tile.first_seen, lambda: self._mask(scores, start, limits))
            weights = self.softmax.weights(scores, STEP)
            self._weigh(weights)

    def _copy(self, start: Expr) -> None:
        """The latents of 32 tokens; zeros for those that nobody sees, since what lies there may be anything."""
        tile, pages, t = self.tile, self.tile.spec.pages, self.tile.arguments
        together = min(pages.page_size, STEP) // CHUNK
        lines = tile.block.threads // together
        component, inside = split(tile.block.thread, together)
        first_page, source = t["page_indptr"].at(tile.s), words(t["pages"])
        for part in range(CHUNKS // together):
            chunk = let(inside + part * together)
            position = let(start + chunk * CHUNK)
            index, _ = split(let(tirx.min(position, tile.seen - 1)), pages.page_size)
            head = pages.head(t["page_ids"].at(first_page + index), i32(0))
            at = let(pages.value(head, component, split(position, pages.page_size)[1]) >> i32(1))
            size = let(tirx.max(tirx.min((tile.seen - position) * 2, i32(CHUNK_BYTES)), i32(0)))
            to = _place(component, chunk)
            for first in range(0, pages.key_dim, lines):

                def copy(first: int = first, at: Expr = at, to: Expr = to, size: Expr = size) -> None:
                    further = let(to + first * CHUNKS * CHUNK_WORDS)
                    self.warp.copy(source, let(at + first * pages.page_size // 2), self.memory, further, size)

                if first + lines <= pages.key_dim:
                    copy()
                else:
                    branch(component < pages.key_dim - first, copy)

    def _score(self) -> Span:
        """Scores of 32 tokens, of which every warp adds up some components; columns are tokens in order."""
        tile, scores = self.tile, registers(TILES * SUMS, fill=zero())
        lane = let(self.tile.block.thread & i32(WARP - 1))
        line, chunk = let((lane & i32(7)) + ((lane >> i32(3)) & i32(1)) * 8), let(lane >> i32(4))
        last = tile.spec.pages.key_dim - INPUTS
        for step in range(tile.steps):
            first = let(tirx.min((self.lane.warp * tile.steps + step) * INPUTS, i32(last)))
            for pair in range(TILES // 2):
                keys = registers(4, "uint32")
                self.warp.load(keys, 0, self.memory, _place(let(first + line), let(chunk + 2 * pair)), transposed=True)
                for j in range(2):
                    self.warp.multiply(self.q, step * A_WORDS, keys, 2 * j, scores, (2 * pair + j) * SUMS)
        for i in range(TILES * SUMS):
            self.exchanged.put(let((self.lane.warp * (TILES * SUMS) + i) * WARP + lane), scores.at(i))
        sync()
        for i in range(TILES * SUMS):
            shares = [self.exchanged.at((warp * TILES * SUMS + i) * WARP + lane) for warp in range(tile.warps)]
            total = shares[0]
            for share in shares[1:]:
                total = let(total + share)
            scores.put(i, total)
        return scores

    def _mask(self, scores: Span, start: Expr, limits: Limits) -> None:
        first = let(self.lane.t * 2)
        self.softmax.hide(scores, STEP, let(start + first), limits, lambda j: j * OUTPUTS)

    def _weigh(self, weights: Span) -> None:
        lane = let(self.tile.block.thread & i32(WARP - 1))
        line, chunk = let(self.lane.warp * self.softmax.dim + (lane & i32(7))), let(lane >> i32(3))
        for n in range(self.softmax.dim // OUTPUTS):
            values = registers(4, "uint32")
            self.warp.load(values, 0, self.memory, _place(let(line + n * OUTPUTS), chunk))
            for part in range(2):
                self.warp.multiply(weights, part * A_WORDS, values, 2 * part, self.softmax.sums, n * SUMS)

    def store_rows(self) -> None:
        factors = [let(1.0 / self.softmax.total(half)) for half in range(2)]
        self.softmax.scale((factors[0], factors[1]))
        y = words(self.tile.arguments["y"])

        def store(start: Expr, component: Expr, low: Expr, high: Expr) -> None:
            y.put(let((start + component) >> i32(1)), self.warp.pair(low, high))

        self._each(self._row, store)

    def _row(self, row: Expr, head: Expr) -> Expr:
        heads = self.tile.spec.pages.heads
        return let(((self.tile.first_row + row) * heads.queries + head) * heads.dim)

    def store_partials(self) -> None:
        """Sums as they are; of scores, which all warps have, what the first one knows."""
        heads, partials, slot = self.tile.spec.pages.heads, self.tile.arguments["partials"], self.tile.block.x

        def place(head: Expr) -> Expr:
            return let((slot * heads.queries + head) * (heads.dim + 2))

        def store(start: Expr, component: Expr, low: Expr, high: Expr) -> None:
            partials.put(let(start + component), low)
            partials.put(let(start + component + 1), high)

        self._each(lambda _, head: place(head), store)
        for half in range(2):
            total = self.softmax.total(half)
            _, head, there = self.tile.query(let(self.lane.g + 8 * half))

            def tell(half: int = half, head: Expr = head, total: Expr = total) -> None:
                at = let(place(head) + heads.dim)
                partials.put(at, self.softmax.state.at(half))
                partials.put(at + 1, total)

            branch(let(tirx.And(there, tirx.And(self.lane.warp < 1, self.lane.t < 1))), tell)

    def _each(self, start_of: Callable[[Expr, Expr], Expr], store: Callable[[Expr, Expr, Expr, Expr], None]) -> None:
        """Calls store(start_of(row, head), component, its sum, the next one's) for all that this lane has."""
        for half in range(2):
            row, head, there = self.tile.query(let(self.lane.g + 8 * half))

            def mine(half: int = half, row: Expr = row, head: Expr = head) -> None:
                start, first = start_of(row, head), let(self.lane.warp * self.softmax.dim + self.lane.t * 2)
                for n in range(self.softmax.dim // OUTPUTS):
                    at = n * SUMS + 2 * half
                    low, high = self.softmax.sums.at(at), self.softmax.sums.at(at + 1)
                    store(start, let(first + n * OUTPUTS), low, high)

            branch(there, mine)


def _place(line: Expr, chunk: Expr) -> Expr:
    """Where a chunk begins, in words: eight lines that follow each other have theirs in different banks."""
    return let((line * CHUNKS + (chunk ^ ((line >> i32(1)) & i32(3)))) * CHUNK_WORDS)
