"""Attention of a few rows over one block of a context: scores, their softmax, and the values weighted by it.

A block is BLOCK tokens at a fixed place. What comes out is partial: for each query the largest score m, the sum l of
exp(score - m), and the sum o of values weighted by it. `attention.py` says who computes which block, and merges.

A query sees a stretch of tokens: up to its own, and from the window's first one on. Scores outside weigh exactly
nothing, and a sum that begins later because pages were left out begins with the same zero; so which pages are read
never shows in a result. Slots that hold no token are never part of a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Expr,
    Index,
    Span,
    branch,
    cast,
    exp,
    f32,
    fma,
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
from cupola.kernels.cpu.pages import HeadShape, PageLayout

BLOCK = 128  # tokens; a multiple of every page size
MASKED = -1e30
FLOOR = -1e29  # least m of a block: keeps exp(MASKED - m) at zero in a block that is masked throughout
TILE_QUERIES = 12  # rows times grouped heads that walk together
SUMS = 12  # vectors of sums that stay in registers: with their operands they fill the sixteen of AVX2


@dataclass(frozen=True)
class AttentionSpec:
    """One attention: its heads and pages, and what a model changes about it.

    Args:
        window: tokens that a row sees, itself the last of them; 0: all before it.
        soft_cap: scores become soft_cap * tanh(score / soft_cap); 0: they stay (Gemma 2, 2024).
        sinks: every query head has a learned logit that takes its share of the softmax and has no value
            (gpt-oss, 2025).
    """

    heads: HeadShape
    pages: PageLayout
    window: int = 0
    soft_cap: float = 0.0
    sinks: bool = False

    @property
    def tile_rows(self) -> int:
        """Rows of one sequence that walk through the context together."""
        return max(1, min(8, TILE_QUERIES // self.heads.group))

    @property
    def block_pages(self) -> int:
        return BLOCK // self.pages.page_size


@dataclass(frozen=True)
class Step:
    """The arguments of one call, and what is read from them."""

    spec: AttentionSpec
    rows: Expr
    sequences: Expr
    page_count: Expr
    q: Span
    pages: Span
    q_indptr: Span
    page_indptr: Span
    page_ids: Span
    kv_len: Span
    y: Span
    o: Span
    ml: Span
    sinks: Span | None = None

    def first_row(self, s: Expr) -> Expr:
        return cast(self.q_indptr.at(s), "int64")

    def first_page(self, s: Expr) -> Expr:
        return cast(self.page_indptr.at(s), "int64")

    def length(self, s: Expr) -> Expr:
        return cast(self.kv_len.at(s), "int64")

    def page(self, index: Expr) -> Expr:
        return cast(self.page_ids.at(index), "int64")

    def page_to_come(self, index: Expr) -> Expr:
        """A page to prefetch: `index` may lie past the last one."""
        return self.page(let(tirx.min(index, self.page_count - 1)))


@dataclass(frozen=True)
class Queries:
    """Some rows of one sequence with the query heads of one key-value head.

    Query j is row `first_row + j / group` and head `key_head * group + j % group`.
    """

    step: Step
    sequence: Expr
    key_head: Expr
    first_row: Expr
    count: int  # rows
    first_seen: Expr  # tokens up to the first row's own, this one included; each later row has one more

    @property
    def size(self) -> int:
        return self.count * self.step.spec.heads.group

    def row_of(self, query: Expr) -> Expr:
        return let(tirx.floordiv(query, self.step.spec.heads.group))

    def head_of(self, query: Expr) -> Expr:
        group = self.step.spec.heads.group
        return let(self.key_head * group + tirx.floormod(query, group))

    def offset(self, query: Expr) -> Expr:
        """Where the query's D values begin in q and y."""
        heads = self.step.spec.heads
        return let(((self.first_row + self.row_of(query)) * heads.queries + self.head_of(query)) * heads.dim)

    def seen(self, row: Index, block: Expr) -> tuple[Expr, Expr]:
        """The tokens of a block that a row sees: from one, up to the other."""
        stop = let(self.first_seen + row - block * BLOCK)
        window = self.step.spec.window
        start = _within_block(stop - window) if window else i64(0)
        return start, _within_block(stop)

    @property
    def blocks(self) -> tuple[Expr, Expr]:
        """The blocks of which some row sees something: from one, up to the other."""
        window = self.step.spec.window
        first = let(tirx.floordiv(tirx.max(i64(0), self.first_seen - window), BLOCK)) if window else i64(0)
        return first, blocks_of(let(self.first_seen + (self.count - 1)))


@dataclass(frozen=True)
class Part:
    """Partial results of some queries: o[query, D] and (m, l)[query]."""

    o: Span
    ml: Span


def blocks_of(tokens: Expr) -> Expr:
    """Blocks that so many tokens take."""
    return let(tirx.floordiv(tokens + (BLOCK - 1), BLOCK))


def _within_block(token: Expr) -> Expr:
    return let(tirx.max(i64(0), tirx.min(i64(BLOCK), token)))


@dataclass(frozen=True)
class _Reach:
    """The pages of a block that some query sees, counted within the block, and the first token past them."""

    first_page: Expr  # of the block, in page_ids
    begin: Expr
    end: Expr
    stop: Expr


def attend(queries: Queries, block: Expr, scores: Span, part: Part) -> None:
    """Writes the partial results of one block; `scores` is working memory, float32 [queries, BLOCK]."""
    step = queries.step
    size = step.spec.pages.page_size
    start, _ = queries.seen(0, block)
    _, stop = queries.seen(queries.count - 1, block)
    first_page = let(step.first_page(queries.sequence) + block * step.spec.block_pages)
    end = let(tirx.floordiv(stop + (size - 1), size))
    reach = _Reach(first_page, let(tirx.floordiv(start, size)), end, stop)
    _scores(queries, reach, scores)
    with serial(queries.size) as j:
        _softmax(queries, j, block, reach, scores, part)
    if step.spec.pages.scaled:
        _scale_weights(queries, reach, scores)
    _weighted_values(queries, reach, scores, part)


# Scores


def _scores(queries: Queries, reach: _Reach, scores: Span) -> None:
    """Scores of every query with whole pages of keys, a few pages at a time if there are few queries."""
    halves = queries.step.spec.pages.page_size // LANES
    chunks = list(_evenly(queries.size, max(1, SUMS // halves)))
    together = max(1, SUMS // (len(chunks[0]) * halves))
    # A row on its own waits for memory; a tile uses each page long enough for the next to come.
    prefetch = queries.count == 1

    def pages(index: Expr, count: int) -> None:
        for chunk in chunks:
            _scores_of_pages(queries, chunk, let(reach.first_page + index), index, count, scores, prefetch)

    sizes = (together, 1) if together > 1 else (1,)
    tiles(let(reach.end - reach.begin), sizes, pages, first=reach.begin)


def _scores_of_pages(
    queries: Queries, chunk: range, page: Expr, index: Expr, count: int, scores: Span, prefetch: bool
) -> None:
    """Scores of some queries with `count` pages: sums over D of vectors over tokens."""
    step, layout, head = queries.step, queries.step.spec.pages, queries.key_head
    halves = layout.page_size // LANES
    ids = [step.page(let(page + k)) for k in range(count)]
    keys = [layout.keys(id_, head) for id_ in ids]
    soon = []
    if prefetch:  # the values of these pages, and the next keys
        soon = [layout.values(id_, head) for id_ in ids]
        soon += [layout.keys(step.page_to_come(let(page + count + k)), head) for k in range(count)]
    offsets = [queries.offset(i64(j)) for j in chunk]
    sums = registers(len(chunk) * count * halves, fill=splat(f32(0.0)))
    unroll = max(2, layout.line // layout.page_size)
    with serial(layout.heads.dim // unroll) as chunk_of_d:
        first = let(chunk_of_d * unroll)
        for at in range(0, unroll * layout.page_size, layout.line):
            for base in soon:
                step.pages.prefetch(base + first * layout.page_size + at)
        for u in range(unroll):
            d = let(first + u)

            def component(i: int) -> Expr:
                return splat(step.q.at(offsets[i] + d))  # noqa: B023

            def column(k: int) -> Expr:
                at = keys[k // halves] + d * layout.page_size  # noqa: B023
                return layout.load(step.pages, at + k % halves * LANES)

            _add_products(sums, component, len(chunk), column, count * halves)
    for k in range(count * halves):
        token = k % halves * LANES
        scale = layout.key_scales(step.pages, ids[k // halves], head, token) if layout.scaled else None
        for i, j in enumerate(chunk):
            score = let(sums.get(i * count * halves + k))
            at = index * layout.page_size + (j * BLOCK + k * LANES)
            scores.store(at, score if scale is None else let(score * scale))


# Softmax


def _softmax(queries: Queries, j: Expr, block: Expr, reach: _Reach, scores: Span, part: Part) -> None:
    """Leaves exp(score - m) in place for one query, 0 where it does not see, and m and their sum in `part`."""
    vectors = queries.step.spec.pages.page_size // LANES
    begin, end = let(reach.begin * vectors), let(reach.end * vectors)
    start, stop = queries.seen(queries.row_of(j), block)
    base = let(j * BLOCK)
    largest = registers(1, fill=splat(f32(FLOOR)))
    cap, hidden = queries.step.spec.soft_cap, splat(f32(MASKED))

    def capped(v: Expr) -> Expr:
        return _capped(scores.load(base + v * LANES), cap)

    def masked(v: Expr) -> Expr:
        lane = let(tirx.Ramp(i32(0), i32(1), LANES) + splat(cast(let(v * LANES), "int32")))
        score = select(lane < splat(cast(stop, "int32")), capped(v), hidden)
        return select(lane >= splat(cast(start, "int32")), score, hidden) if queries.step.spec.window else score

    def over(first: Expr, last: Expr, score_of: Callable[[Expr], Expr], store: bool) -> None:
        with serial(last, start=first) as v:
            score = score_of(v)
            if store:
                scores.store(base + v * LANES, score)
            largest.put(0, let(tirx.max(largest.get(0), score)))

    # Only where the query's stretch begins and ends is there something to mask.
    first = let(tirx.min(tirx.max(begin, tirx.floordiv(start + (LANES - 1), LANES)), end))
    last = let(tirx.max(first, tirx.floordiv(stop, LANES)))
    if queries.step.spec.window:
        over(begin, first, masked, store=True)
    over(first, last, capped, store=cap > 0)
    over(last, end, masked, store=True)

    m = max_lanes(let(largest.get(0)))
    total = registers(1, fill=splat(f32(0.0)))
    with serial(end, start=begin) as v:
        weight = exp(let(scores.load(base + v * LANES) - splat(m)))
        scores.store(base + v * LANES, weight)
        total.put(0, let(total.get(0) + weight))
    part.ml.put(j * 2, m)
    part.ml.put(j * 2 + 1, sum_lanes(let(total.get(0))))


def _capped(score: Expr, cap: float) -> Expr:
    """cap * tanh(score / cap), by tanh(x) = 1 - 2 / (e^2x + 1)."""
    if cap == 0:
        return score
    one = splat(f32(1.0))
    tail = let(splat(f32(2.0)) / let(exp(let(score * splat(f32(2.0 / cap)))) + one))
    return let(let(one - tail) * splat(f32(cap)))


# Values


def _scale_weights(queries: Queries, reach: _Reach, weights: Span) -> None:
    """Moves the scales of the values into the weights, which are fewer."""
    step, layout = queries.step, queries.step.spec.pages
    with serial(reach.end, start=reach.begin) as index:
        page = step.page(let(reach.first_page + index))
        for token in range(0, layout.page_size, LANES):
            scale = layout.value_scales(step.pages, page, queries.key_head, token)
            for j in range(queries.size):
                at = let(index * layout.page_size + (j * BLOCK + token))
                weights.store(at, let(weights.load(at) * scale))


def _weighted_values(queries: Queries, reach: _Reach, weights: Span, part: Part) -> None:
    """o: the values of the tokens in reach, weighted."""
    dim = queries.step.spec.heads.dim
    for chunk in _evenly(queries.size, 6):
        for columns in _evenly(dim // LANES, _columns_together(len(chunk))):
            _weighted_columns(queries, reach, chunk, columns, weights, part)


def _columns_together(queries: int) -> int:
    """The widest tile of sums whose operands fit beside them in fifteen registers."""
    return max(wide for wide in range(1, SUMS + 1) if queries * wide + min(queries, wide) + 1 <= SUMS + 3)


def _weighted_columns(queries: Queries, reach: _Reach, chunk: range, columns: range, weights: Span, part: Part) -> None:
    """Eight components a column of the weighted values, for some queries."""
    step, layout, dim = queries.step, queries.step.spec.pages, queries.step.spec.heads.dim
    sums = registers(len(chunk) * len(columns), fill=splat(f32(0.0)))

    def token(values: Expr, t: Expr, weight_at: Expr) -> None:
        def weight(i: int) -> Expr:
            return splat(weights.at(weight_at + chunk[i] * BLOCK))

        def value(k: int) -> Expr:
            return layout.load(step.pages, values + t * dim + columns[k] * LANES)

        _add_products(sums, weight, len(chunk), value, len(columns))

    _for_tokens(queries, reach, token)
    for i, j in enumerate(chunk):
        for k, column in enumerate(columns):
            part.o.store(j * dim + column * LANES, let(sums.get(i * len(columns) + k)))


def _for_tokens(queries: Queries, reach: _Reach, body: Callable[[Expr, Expr, Expr], None]) -> None:
    """Calls body(values of the page, token within it, token within the block) for the tokens in reach."""
    step, layout = queries.step, queries.step.spec.pages
    size = layout.page_size

    def page(index: Expr, tokens: Index) -> None:
        values = layout.values(step.page(let(reach.first_page + index)), queries.key_head)
        with serial(tokens) as t:
            body(values, t, let(index * size + t))

    full = let(tirx.floordiv(reach.stop, size))
    with serial(full, start=reach.begin) as index:
        page(index, size)
    branch(let(full < reach.end), lambda: page(full, let(reach.stop - full * size)))


def _add_products(sums: Span, left: Callable[[int], Expr], m: int, right: Callable[[int], Expr], n: int) -> None:
    """sums[i, k] += left(i) * right(k). The fewer operands stay in registers, the others come one by one."""
    kept = [right(k) for k in range(n)] if n <= m else [left(i) for i in range(m)]
    for outer in range(max(m, n)):
        one = left(outer) if n <= m else right(outer)
        for inner, other in enumerate(kept):
            at = outer * n + inner if n <= m else inner * n + outer
            sums.put(at, fma(one, other, sums.get(at)))


def _evenly(count: int, most: int) -> Iterator[range]:
    """Ranges of at most `most`, of sizes as equal as can be."""
    pieces = -(-count // most)
    for piece in range(pieces):
        yield range(piece * count // pieces, (piece + 1) * count // pieces)


def working_memory(queries: int, dim: int) -> tuple[Span, Part]:
    """Scores and partial results of some queries."""
    return scratch(queries * BLOCK), Part(scratch(queries * dim), scratch(queries * 2))
