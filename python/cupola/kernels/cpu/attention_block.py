"""Attention of a few rows over one block of a context: scores, their softmax, and the values weighted by it.

A block is BLOCK tokens at a fixed place. What comes out is partial: for each query the largest score m, the sum l of
exp(score - m), and the sum o of values weighted by it. `attention.py` says who computes which block, and merges.

A query sees a stretch of tokens: up to its own, and from the window's first one on. Scores outside weigh exactly
nothing, and a sum that begins later because pages were left out begins with the same zero; so which pages are read
never shows in a result. Slots that hold no token never show in it either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.attention_products import Products, products
from cupola.kernels.cpu.attention_step import BLOCK, WIDE, Coming, Context, Following, Part, Queries, Reach
from cupola.kernels.cpu.emit import (
    LANES,
    Expr,
    Span,
    cast,
    exp,
    f32,
    i32,
    i64,
    let,
    max_lanes,
    registers,
    scratch,
    select,
    serial,
    splat,
    sum_lanes,
    tiles,
)
from cupola.kernels.cpu.functions import soft_cap

MASKED = -1e30
FLOOR = -1e29  # least m of a block: keeps exp(MASKED - m) at zero in a block that is masked throughout
QUERIES_TOGETHER = 6  # in one tile of sums


@dataclass(frozen=True)
class Task:
    """Some queries, and the working memory in which they meet one block after the other.

    Args:
        scores: float32 [queries, BLOCK].
        part: what a block comes to.
        following: block -> the pages that will be read after it, for rows on their own, which wait for memory; a tile
            uses each page long enough for the next to come.
    """

    queries: Queries
    products: Products
    scores: Span
    part: Part
    following: Following

    @staticmethod
    def of(queries: Queries, following: Following = None) -> Task:
        """With memory of its own, and the queries read."""
        dim = queries.step.spec.heads.dim
        scores = scratch(queries.size * BLOCK)
        task = Task(queries, products(queries, scores), scores, part_of(queries.size, dim), following)
        task.products.begin()
        return task

    def attend(self, block: Expr) -> None:
        """Leaves the partial results of one block in `part`."""
        reach = self.queries.reach(block)
        coming = self.following(block) if self.following else None
        self.score(reach)
        self.products.begin_weights(reach)
        with serial(self.queries.size) as j:
            _softmax(self, j, block, reach)
        _weighted_values(self, reach, coming)

    def score(self, reach: Reach) -> None:
        """Leaves the scores of every query with the pages in reach in `scores`."""
        _scores(self, reach)


def part_of(queries: int, dim: int) -> Part:
    """Memory of partial results."""
    return Part(scratch(queries * dim), scratch(queries * 2))


# Scores


def _scores(task: Task, reach: Reach) -> None:
    """Scores of every query with whole pages of keys, a few pages at a time if there are few queries."""
    queries = task.queries
    halves = queries.step.spec.pages.page_size // LANES
    most = min(QUERIES_TOGETHER, most_beside(task, halves))
    together = max(1, most_beside(task, min(most, queries.size)) // halves)

    def pages(index: Expr, count: int) -> None:
        in_chunks(queries.size, most, lambda first, size: _scores_of_pages(task, first, size, reach, index, count))

    sizes = (together, 1) if together > 1 else (1,)
    tiles(let(reach.end - reach.begin), sizes, pages, first=reach.begin)


def _scores_of_pages(task: Task, first_query: Expr, size: int, reach: Reach, index: Expr, count: int) -> None:
    """Scores of `size` queries with `count` pages: sums over D of vectors over tokens."""
    step, head, arithmetic = task.queries.step, task.queries.key_head, task.products
    layout = step.spec.pages
    halves, page = layout.page_size // LANES, let(reach.first_page + index)
    queries = [let(first_query + i) for i in range(size)]
    ids = [step.page(let(page + k)) for k in range(count)]
    keys = [layout.keys(id_, head) for id_ in ids]
    soon = [layout.values(id_, head) for id_ in ids] if task.following else []
    firsts = [arithmetic.query_at(j) for j in queries]
    sums = arithmetic.sums(size * count * halves)
    row = layout.page_size * layout.depth  # elements that one step of all tokens takes
    unroll = max(2, layout.line // row)
    with serial(layout.heads.dim // (layout.depth * unroll)) as part:
        first = let(part * unroll)
        for at in range(0, unroll * row, layout.line):
            for base in soon:
                step.pages.prefetch(base + first * row + at)
        for u in range(unroll):
            d = let(first + u)

            def query(i: int) -> Expr:
                return arithmetic.query(firsts[i] + d)  # noqa: B023

            def column(k: int) -> Expr:
                at = keys[k // halves] + d * row  # noqa: B023
                return layout.load(step.pages, at + k % halves * (LANES * layout.depth))

            add_products(arithmetic, sums, query, size, column, count * halves)
    for k in range(count * halves):
        token = k % halves * LANES
        scales = layout.key_scales(step.pages, ids[k // halves], head, token) if layout.scaled else None
        for i, j in enumerate(queries):
            score = arithmetic.scores(let(sums.get(i * count * halves + k)), j, scales)
            task.scores.store(index * layout.page_size + (j * BLOCK + k * LANES), score)


def _prefetch(step: Context, first: Expr, count: int) -> None:
    """Asks for the cache lines of neighbours in the pages."""
    for at in range(0, count, step.spec.pages.line):
        step.pages.prefetch(first + at)


# Softmax


def _softmax(task: Task, j: Expr, block: Expr, reach: Reach) -> None:
    """Makes weights exp(score - m) of one query's scores, 0 where it does not see; m and their sum go to the part."""
    queries, scores = task.queries, task.scores
    spec, size = queries.step.spec, queries.step.spec.pages.page_size
    begin = let(tirx.floordiv(reach.begin * size, WIDE))
    end = let(tirx.floordiv(reach.end * size + (WIDE - 1), WIDE))
    start, stop = queries.seen(queries.row_of(j), block)
    base = let(j * BLOCK)
    largest = registers(1, f"float32x{WIDE}", fill=splat(f32(FLOOR), WIDE))
    hidden = splat(f32(MASKED), WIDE)

    def capped(v: Expr) -> Expr:
        score = queries.adjusted(j, let(block * BLOCK + v * WIDE), scores.load(base + v * WIDE, WIDE))
        return soft_cap(score, spec.soft_cap) if spec.soft_cap else score

    def masked(v: Expr) -> Expr:
        lane = let(tirx.Ramp(i32(0), i32(1), WIDE) + splat(cast(let(v * WIDE), "int32"), WIDE))
        score = select(lane < splat(cast(stop, "int32"), WIDE), capped(v), hidden)
        return select(lane >= splat(cast(start, "int32"), WIDE), score, hidden) if spec.window else score

    def over(first: Expr, last: Expr, score_of: Callable[[Expr], Expr], store: bool) -> None:
        with serial(last, start=first) as v:
            score = score_of(v)
            if store:
                scores.store(base + v * WIDE, score)
            largest.put(0, let(tirx.max(largest.get(0), score)))

    # Only where the query's stretch begins and ends is there something to mask.
    first = let(tirx.min(tirx.max(begin, tirx.floordiv(start + (WIDE - 1), WIDE)), end))
    last = let(tirx.max(first, tirx.floordiv(stop, WIDE)))
    if spec.window:
        over(begin, first, masked, store=True)
    over(first, last, capped, store=spec.soft_cap > 0 or queries.adjusts)
    over(last, end, masked, store=True)

    m = max_lanes(let(largest.get(0)))
    total = registers(1, f"float32x{WIDE}", fill=splat(f32(0.0), WIDE))

    def weight(v: Expr) -> Expr:
        weight = exp(let(scores.load(base + v * WIDE, WIDE) - splat(m, WIDE)))
        total.put(0, let(total.get(0) + weight))
        return weight

    task.products.weigh(j, begin, end, weight)
    task.part.ml.put(j * 2, m)
    task.part.ml.put(j * 2 + 1, sum_lanes(let(total.get(0))))


# Values


def _weighted_values(task: Task, reach: Reach, coming: Coming | None) -> None:
    """o: the values of the tokens in reach, weighted; prefetches the keys of the pages to come."""
    dim = task.queries.step.spec.heads.dim

    def chunk(first: Expr, size: int) -> None:
        def columns(column: Expr, count: int) -> None:
            _weighted_columns(task, reach, coming, [let(first + i) for i in range(size)], column, count)

        in_chunks(dim // LANES, most_beside(task, size), columns)

    in_chunks(task.queries.size, QUERIES_TOGETHER, chunk)


def _weighted_columns(
    task: Task, reach: Reach, coming: Coming | None, queries: Sequence[Expr], column: Expr, count: int
) -> None:
    """`count` columns, eight components each, of the weighted values, for some queries."""
    step, arithmetic = task.queries.step, task.products
    layout, dim = step.spec.pages, step.spec.heads.dim
    depth, size = layout.depth, len(queries)
    sums = arithmetic.sums(size * count)
    weights = [let(j * (BLOCK // depth)) for j in queries]

    def tokens(index: Expr, values: Expr, within: Expr, at: Expr) -> None:
        if coming is not None:
            page = step.page_to_come(let(coming.first_page + index))
            _prefetch(step, layout.keys(page, coming.head) + within * (layout.row * depth), layout.row * depth)

        def weight(i: int) -> Expr:
            return arithmetic.weight(at + weights[i])

        def value(k: int) -> Expr:
            return layout.load(step.pages, values + within * (layout.row * depth) + (column + k) * (LANES * depth))

        add_products(arithmetic, sums, weight, size, value, count)

    arithmetic.for_steps(reach, tokens)
    for i, j in enumerate(queries):
        for k in range(count):
            value = arithmetic.values(let(sums.get(i * count + k)), j)
            task.part.o.store(j * dim + (column + k) * LANES, value)


# Sums


def most_beside(task: Task, count: int) -> int:
    """The other side of the widest tile of sums with `count` on one: they and their operands stay in registers, but
    one, for what the instruction set may need."""
    registers_ = task.queries.step.isa.registers - 1
    return max([n for n in range(1, registers_) if count * n + min(count, n) + 1 <= registers_], default=1)


def add_products(
    arithmetic: Products, sums: Span, left: Callable[[int], Expr], m: int, right: Callable[[int], Expr], n: int
) -> None:
    """sums[i, k] += left(i) * right(k). The fewer operands stay in registers, the others come one by one."""
    kept = [right(k) for k in range(n)] if n <= m else [left(i) for i in range(m)]
    for outer in range(max(m, n)):
        one = left(outer) if n <= m else right(outer)
        for inner, other in enumerate(kept):
            at = outer * n + inner if n <= m else inner * n + outer
            sums.put(at, arithmetic.add(sums.get(at), one, other))


def in_chunks(count: int, most: int, body: Callable[[Expr, int], None]) -> None:
    """Calls body(first, size) for chunks of at most `most`, of one size but for the last."""
    size = -(-count // -(-count // most))
    full, rest = divmod(count, size)
    with serial(full) as chunk:
        body(let(chunk * size), size)
    if rest:
        body(i64(full * size), rest)
