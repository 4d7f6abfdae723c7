"""Some queries of one sequence with one key-value head, walking through blocks of its context.

scores    a thread has a token of the block, and some of the queries: it needs no other to sum over D
softmax   a few threads have a query (Milakov and Gimelshein, 2018; Dao, 2022)
values    a thread has a component of the output, and all queries; where there are more threads than components,
          they share the tokens
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm import tirx

from cupola.kernels.emit import Expr, Index, Span, branch, f32, i32, let, select
from cupola.kernels.gpu.emit import (
    MASKED,
    Block,
    ceildiv,
    madd,
    read,
    registers,
    serial,
    shared,
    split,
    sync,
    zero,
)
from cupola.kernels.gpu.functions import exp, soft_cap
from cupola.kernels.gpu.pages import GpuPages
from cupola.kernels.gpu.trait import Gpu

THREADS = 128
_MOST_QUERIES = 16
_SOFTMAX_LANES = 16


@dataclass(frozen=True)
class Shape:
    """Of a tile: rows times query heads of one key-value head, and the tokens of a block of the context."""

    rows: int
    heads: int
    tokens: int

    @classmethod
    def of(cls, pages: GpuPages, gpu: Gpu, tokens: int, *, rows: int | None = None) -> Shape:
        """The largest tile that fits; with as many rows as there is room for, or so many."""
        tokens = max(tokens, pages.page_size)
        room = gpu.shared_bytes // 4 // (pages.key_dim + tokens + 2 * _SOFTMAX_LANES + 3)
        most = max(1, min(room, _MOST_QUERIES))
        group = pages.heads.group
        heads = max(count for count in range(1, most + 1) if group % count == 0)
        return cls(max(1, most // heads) if rows is None else rows, heads, tokens)

    @property
    def queries(self) -> int:
        return self.rows * self.heads


@dataclass(frozen=True)
class Queries:
    """Which queries a tile has: query j is row `first_row + j / heads` and head `first_head + j % heads`.

    Args:
        rows: how many of the tile's rows there are.
        key_head: whose keys and values they meet.
        first_seen: tokens up to the first row's own, this one included; each later row has one more.
        first_page: of the sequence, in page_ids.
    """

    first_row: Expr
    rows: Expr
    first_head: Expr
    key_head: Expr
    first_seen: Expr
    first_page: Expr

    @property
    def seen(self) -> Expr:
        """Tokens that the last row sees."""
        return let(self.first_seen + self.rows - 1)


@dataclass(frozen=True)
class Tile:
    """A tile at work, with its arguments and its memory."""

    shape: Shape
    pages: GpuPages
    window: int
    cap: float
    block: Block
    arguments: dict[str, Span]
    queries: Queries
    q: Span  # [queries, components of a key]
    scores: Span  # [queries, tokens]
    partial: Span  # [2, queries, softmax lanes]
    state: Span  # [3, queries]: largest score, sum, and the factor on what was summed before
    sums: Span  # registers [queries, components of a thread]

    @classmethod
    def begin(
        cls,
        shape: Shape,
        pages: GpuPages,
        window: int,
        cap: float,
        block: Block,
        arguments: dict[str, Span],
        queries: Queries,
    ) -> Tile:
        """Allocates memory and loads the queries."""
        count, dim = shape.queries, pages.key_dim
        components = -(-pages.heads.dim // THREADS)
        tile = cls(
            shape,
            pages,
            window,
            cap,
            block,
            arguments,
            queries,
            q=shared(count * dim),
            scores=shared(count * shape.tokens),
            partial=shared(2 * count * _SOFTMAX_LANES),
            state=shared(3 * count),
            sums=registers(count * components, fill=zero()),
        )
        block.each(count * dim, tile._load_query)
        return tile

    @property
    def lanes(self) -> int:
        """Threads that have one query in the softmax."""
        lanes = 1
        while lanes * 2 <= min(_SOFTMAX_LANES, THREADS // self.shape.queries, self.shape.tokens):
            lanes *= 2
        return lanes

    @property
    def sharers(self) -> int:
        """Threads that have the same component of the output."""
        return max(1, THREADS // self.pages.heads.dim)

    @property
    def blocks(self) -> tuple[Index, Index]:
        """The blocks of which some query sees something: from one, up to the other."""
        return seen_blocks(self.queries.first_seen, self.queries.seen, self.window, self.shape.tokens)

    def init(self, sink: Callable[[Expr], Expr] | None) -> None:
        """Before the first block. `sink` gives the logit of a head that has no value."""

        def one(j: Expr) -> None:
            if sink is None:
                self._put(0, j, f32(MASKED))
                self._put(1, j, zero())
            else:
                self._put(0, j, sink(self._head(j)))
                self._put(1, j, f32(1.0))

        self.block.each(self.shape.queries, one)
        sync()

    def attend(self, index: Expr) -> None:
        """Goes through one block of the context."""
        start = let(index * self.shape.tokens)
        self._score(start)
        sync()
        self._softmax()
        self._weigh(start)
        sync()

    def gather(self) -> None:
        """Adds up what sharers summed; the first of them has the result."""
        dim, count = self.pages.heads.dim, self.shape.queries
        for sharer in range(1, self.sharers):
            first = sharer * dim
            mine = let(self.block.thread - first)

            def give(mine: Expr = mine) -> None:
                for j in range(count):
                    self.q.put(j * dim + mine, self.sums.at(j))

            def take() -> None:
                for j in range(count):
                    self.sums.put(j, let(self.sums.at(j) + self.q.at(j * dim + self.block.thread)))

            branch(let(tirx.And(mine >= 0, mine < dim)), give)
            sync()
            branch(self.block.thread < dim, take)
            sync()

    def results(self, store: Callable[[int, Expr, Expr], None]) -> None:
        """Calls store(query, component, sum) for all that this thread has of rows that there are."""
        dim = self.pages.heads.dim
        for c in range(-(-dim // THREADS)):
            component = let(self.block.thread + c * THREADS)

            def mine(c: int = c, component: Expr = component) -> None:
                for j in range(self.shape.queries):

                    def one(j: int = j) -> None:
                        store(j, component, self.sums.at(self._sum(j, c)))

                    if self.shape.rows == 1:
                        one()
                    else:
                        branch(self.queries.rows > j // self.shape.heads, one)

            branch(component < dim, mine)

    def largest(self, query: Index) -> Expr:
        """The largest score of a query so far."""
        return self.state.at(query)

    def total(self, query: Index) -> Expr:
        """The sum of a query's weights so far."""
        return self.state.at(query + self.shape.queries)

    # Steps of a block

    def _score(self, start: Expr) -> None:
        """Scores of all queries with the tokens of a block."""
        shape, dim = self.shape, self.pages.key_dim
        for first in range(0, shape.tokens, THREADS):
            width = min(THREADS, shape.tokens - first)
            groups = THREADS // width
            each = -(-shape.queries // groups)
            group, lane = split(self.block.thread, width)
            inside = let(lane + first)
            position = let(start + inside)
            head, token = self._place(let(tirx.min(position, self.queries.seen - 1)))
            mine = [let(tirx.min(group * each + i, i32(shape.queries - 1))) for i in range(each)]
            dots = registers(each, fill=zero())
            with serial(dim) as d:
                key = read(self.arguments["pages"], self.pages.key(head, d, token))
                for i, j in enumerate(mine):
                    dots.put(i, madd(self.q.at(j * dim + d), key, dots.at(i)))
            for i, j in enumerate(mine):
                score = soft_cap(dots.at(i), self.cap) if self.cap else dots.at(i)
                self.scores.put(j * shape.tokens + inside, select(self._sees(j, position), score, f32(MASKED)))

    def _sees(self, query: Expr, position: Expr) -> Expr:
        row, _ = split(query, self.shape.heads)
        seen = let(self.queries.first_seen + row)
        if not self.window:
            return let(position < seen)
        return let(tirx.And(position < seen, position >= seen - self.window))

    def _softmax(self) -> None:
        """Scores become weights, and the state that of all tokens so far."""
        shape, lanes = self.shape, self.lanes
        query, lane = split(self.block.thread, lanes)
        mine = [let(query * shape.tokens + lane + i * lanes) for i in range(shape.tokens // lanes)]
        active = let(query < shape.queries)
        maxima, totals = query * lanes, (query + shape.queries) * lanes

        def largest() -> None:
            found = self.scores.at(mine[0])
            for at in mine[1:]:
                found = let(tirx.max(found, self.scores.at(at)))
            self.partial.put(maxima + lane, found)

        def newest() -> Expr:
            found = self.largest(query)
            for i in range(lanes):
                found = let(tirx.max(found, self.partial.at(maxima + i)))
            return found

        def weights() -> None:
            new, total = newest(), zero()
            for at in mine:
                score = self.scores.at(at)
                weight = select(score > f32(MASKED / 2), exp(let(score - new)), zero())
                self.scores.put(at, weight)
                total = let(total + weight)
            self.partial.put(totals + lane, total)

        def update() -> None:
            new = newest()
            factor = exp(let(self.largest(query) - new))
            total = let(self.total(query) * factor)
            for i in range(lanes):
                total = let(total + self.partial.at(totals + i))
            self._put(0, query, new)
            self._put(1, query, total)
            self._put(2, query, factor)

        branch(active, largest)
        sync()
        branch(active, weights)
        sync()
        branch(let(tirx.And(active, lane < 1)), update)
        sync()

    def _weigh(self, start: Expr) -> None:
        """Adds the values of a block by their weights."""
        shape, pages, dim = self.shape, self.pages, self.pages.heads.dim
        sharer, component = split(self.block.thread, dim) if self.sharers > 1 else (i32(0), self.block.thread)
        factors = [self.state.at(2 * shape.queries + j) for j in range(shape.queries)]
        stop = let(tirx.min(self.queries.seen - start, i32(shape.tokens)))

        def components(c: int, at: Expr) -> None:
            for j in range(shape.queries):
                self.sums.put(self._sum(j, c), let(self.sums.at(self._sum(j, c)) * factors[j]))
            with serial(ceildiv(stop, pages.page_size)) as page:
                first = let(page * pages.page_size)
                head = self._head_of_page(let(start + first))
                count = let(tirx.min(stop - first, i32(pages.page_size)) - sharer)
                with serial(tirx.max(ceildiv(count, self.sharers), i32(0))) as i:
                    token = let(i * self.sharers + sharer)
                    value = read(self.arguments["pages"], pages.value(head, at, token))
                    for j in range(shape.queries):
                        weight = self.scores.at(j * shape.tokens + first + token)
                        self.sums.put(self._sum(j, c), madd(weight, value, self.sums.at(self._sum(j, c))))

        for c in range(-(-dim // THREADS)):
            at = let(component + c * THREADS)
            bound = at < dim if self.sharers == 1 else sharer < self.sharers
            branch(bound, partial(components, c, at))

    # Places

    def _load_query(self, at: Expr) -> None:
        """What belongs to a key's components behind those of a value is the query's second part, r."""
        heads, rest = self.pages.heads, self.pages.key_dim - self.pages.heads.dim
        j, d = split(at, self.pages.key_dim)
        row, _ = split(j, self.shape.heads)
        place = let(self.queries.first_row + tirx.min(row, self.queries.rows - 1))
        head = let(place * heads.queries + self._head(j))

        def load(name: str, source: Expr) -> None:
            self.q.put(at, read(self.arguments[name], let(source)))

        def first() -> None:
            load("q", head * heads.dim + d)

        if rest:
            branch(d < heads.dim, first, lambda: load("r", head * rest + (d - heads.dim)))
        else:
            first()

    def _head(self, query: Index) -> Expr:
        """The query head of a query."""
        inside = tirx.truncmod(query, i32(self.shape.heads)) if self.shape.rows > 1 else query
        return let(self.queries.first_head + inside)

    def _head_of_page(self, position: Expr) -> Expr:
        """Where the key-value head begins in the page of a token."""
        index, _ = split(position, self.pages.page_size)
        page = self.arguments["page_ids"].at(self.queries.first_page + index)
        return self.pages.head(page, self.queries.key_head)

    def _place(self, position: Expr) -> tuple[Expr, Expr]:
        """Where the key-value head begins in a token's page, and the token within it."""
        _, token = split(position, self.pages.page_size)
        return self._head_of_page(position), token

    def _sum(self, query: int, part: int) -> int:
        return query * -(-self.pages.heads.dim // THREADS) + part

    def _put(self, which: int, query: Expr, value: Expr) -> None:
        self.state.put(let(query + which * self.shape.queries), value)


def seen_blocks(first_seen: Expr, last_seen: Expr, window: int, tokens: int) -> tuple[Index, Index]:
    """The blocks of which somebody sees something, from one, up to the other.

    Args:
        first_seen, last_seen: tokens up to the first row's own and up to the last row's.
    """
    first = let(tirx.truncdiv(tirx.max(first_seen - window, i32(0)), i32(tokens))) if window else i32(0)
    return first, ceildiv(last_seen, tokens)
