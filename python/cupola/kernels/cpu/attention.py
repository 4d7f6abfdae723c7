"""Causal attention over pages: one kernel for prefill, chunks of it, decodes, and any mixture.

The context is cut into blocks of BLOCK tokens at fixed places. For each block a row of queries gets a partial result
(the largest score m, the sum l of exp(score - m), the sum o of values weighted by it), and the partials are merged in
the order of the blocks (Milakov and Gimelshein, 2018; Dao, 2022). Work is dealt out in one of two ways:

    tiles    a few rows of one sequence and all query heads of one key-value head walk through the blocks together
    splits   when every sequence has one row and there are few of them, threads share the blocks of a long context,
             and a second stage merges the partials

Both do the same operations in the same order for a row, and masked scores weigh exactly nothing, so that a row's result
does not depend on the road, on the chunking of the prompt, or on other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
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
    kernel,
    let,
    max_lanes,
    parallel,
    region,
    registers,
    scratch,
    select,
    serial,
    size_var,
    splat,
    sum_lanes,
    while_,
)
from cupola.kernels.cpu.pages import HeadShape, PageLayout

BLOCK = 256  # tokens of a partial result
MASKED = -1e30
FLOOR = -1e29  # least m of a block: keeps exp(MASKED - m) at zero in a block that is masked throughout
TILE_QUERIES = 12  # rows times grouped heads that walk together
FEW_TASKS = 16  # sequences times key-value heads up to which a decode is split over the context


@dataclass(frozen=True)
class AttentionSpec:
    """One attention: its heads and pages."""

    heads: HeadShape
    pages: PageLayout

    @property
    def tile_rows(self) -> int:
        """Rows of one sequence that walk through the context together."""
        return max(1, min(8, TILE_QUERIES // self.heads.group))

    @property
    def block_pages(self) -> int:
        return BLOCK // self.pages.page_size


def split_slots(total_pages: Index, sequences: Index, block_pages: int) -> Index:
    """Upper bound of the blocks in all contexts: sequence s owns slots from page_indptr[s] / block_pages + s on."""
    return tirx.floordiv(total_pages, block_pages) + sequences


def attention(spec: AttentionSpec) -> tirx.PrimFunc:
    """(q float32[n, H*D], pages, q_indptr, page_indptr, page_ids, kv_len) -> partials, merged: see the module.

    q is rotated and scaled. The outputs are y float32[n, H*D] and working memory for the partials:
    o float32[slots, H*D] and ml float32[slots, H, 2], slots as `split_slots` says.
    """
    n, b, p, num_pages = size_var("n"), size_var("b"), size_var("p"), size_var("num_pages")
    b1 = size_var("b1")
    heads = spec.heads
    width = heads.queries * heads.dim
    slots = size_var("slots")
    args = {
        "q": Arg((n, width), "float32"),
        "pages": Arg((num_pages, spec.pages.elements), spec.pages.dtype),
        "q_indptr": Arg((b1,), "int32"),
        "page_indptr": Arg((b1,), "int32"),
        "page_ids": Arg((p,), "int32"),
        "kv_len": Arg((b,), "int32"),
        "y": Arg((n, width), "float32"),
        "o": Arg((slots, width), "float32"),
        "ml": Arg((slots, heads.queries, 2), "float32"),
    }

    def body(**t: Span) -> None:
        step = _Step(spec, n, b, **t)
        splits = let(tirx.And(n == b, b * heads.keys <= i64(FEW_TASKS)))
        tile_count = let(tirx.floordiv(n + (spec.tile_rows - 1), spec.tile_rows))
        all_blocks = split_slots(p, b, spec.block_pages)
        tasks = select(splits, all_blocks * heads.keys, tile_count * heads.keys)
        merges = select(splits, b * heads.queries, i64(0))
        with region():
            with parallel(tasks) as task:
                branch(splits, lambda: _split(step, task), lambda: _tile(step, tile_count, task))
            with parallel(merges) as task:
                _merge_splits(step, task)

    return kernel("attention", args, body)


@dataclass(frozen=True)
class _Step:
    """The arguments of one call, and what is read from them."""

    spec: AttentionSpec
    rows: Expr
    sequences: Expr
    q: Span
    pages: Span
    q_indptr: Span
    page_indptr: Span
    page_ids: Span
    kv_len: Span
    y: Span
    o: Span
    ml: Span

    def first_row(self, s: Expr) -> Expr:
        return cast(self.q_indptr.at(s), "int64")

    def first_page(self, s: Expr) -> Expr:
        return cast(self.page_indptr.at(s), "int64")

    def length(self, s: Expr) -> Expr:
        return cast(self.kv_len.at(s), "int64")

    def page(self, index: Expr) -> Expr:
        return cast(self.page_ids.at(index), "int64")

    def first_slot(self, s: Expr) -> Expr:
        return let(tirx.floordiv(self.first_page(s), self.spec.block_pages) + s)


@dataclass(frozen=True)
class _Queries:
    """Some rows of one sequence with the query heads of one key-value head.

    Query j is row `first_row + j / group` and head `key_head * group + j % group`; row r sees `visible(r)` tokens.
    """

    step: _Step
    sequence: Expr
    key_head: Expr
    first_row: Expr
    count: int  # rows
    first_visible: Expr  # tokens that the first row sees; each later row sees one more

    @property
    def size(self) -> int:
        return self.count * self.step.spec.heads.group

    def offset(self, query: int) -> Expr:
        """Where the query's D values begin in q and y."""
        heads = self.step.spec.heads
        row, head = divmod(query, heads.group)
        return let(((self.first_row + row) * heads.queries + self.key_head * heads.group + head) * heads.dim)

    def visible(self, query: int, block: Expr) -> Expr:
        """Tokens of a block that the query sees."""
        seen = self.first_visible + query // self.step.spec.heads.group - block * BLOCK
        return let(tirx.max(i64(0), tirx.min(i64(BLOCK), seen)))


# Two ways to deal out the work


def _tile(step: _Step, count: Expr, task: Expr) -> None:
    """Some rows with one key-value head. Early and late tiles alternate: later rows see more of their context, and
    equal shares of tasks shall be equal shares of work."""
    heads, tile_rows = step.spec.heads, step.spec.tile_rows
    order, head = let(tirx.floordiv(task, heads.keys)), let(tirx.floormod(task, heads.keys))
    half = let(tirx.floordiv(order, 2))
    tile = select(let(tirx.floormod(order, 2) == i64(0)), half, let(count - 1 - half))
    cursor = scratch(2, "int64")  # next row, its sequence
    cursor.put(0, let(tile * tile_rows))
    cursor.put(1, i64(0))
    end = let(tirx.min(step.rows, let(tile * tile_rows + tile_rows)))
    with while_(lambda: cursor.get(0) < end):
        _advance_to_sequence_of(step, cursor)
        _tile_rows_of_one_sequence(step, cursor, end, head)


def _advance_to_sequence_of(step: _Step, cursor: Span) -> None:
    with while_(lambda: tirx.Cast("int64", step.q_indptr.get(cursor.get(1) + i64(1))) <= cursor.get(0)):
        cursor.put(1, let(cursor.get(1) + i64(1)))


def _tile_rows_of_one_sequence(step: _Step, cursor: Span, end: Expr, head: Expr) -> None:
    row, s = let(cursor.get(0)), let(cursor.get(1))
    tile_rows = step.spec.tile_rows
    stop = let(tirx.min(end, step.first_row(let(s + 1))))
    # The sequence's last row sees all of it.
    visible = let(step.length(s) - (step.first_row(let(s + 1)) - row) + 1)

    def walk(rows: int) -> None:
        _walk(_Queries(step, s, head, row, rows, visible))
        cursor.put(0, let(row + rows))

    # A branch even for tiles of one row: TVM frees workspace at the end of a branch or a for loop, not of a while loop.
    alone = None if tile_rows == 1 else lambda: walk(1)
    branch(let(stop - row >= i64(tile_rows)), lambda: walk(tile_rows), alone)


def _walk(queries: _Queries) -> None:
    """All blocks of one tile, merged as they come."""
    heads = queries.step.spec.heads
    size = queries.size
    total = scratch(size * heads.dim)
    totals = scratch(size * 2)
    _clear(size, heads.dim, total, totals)
    last = let(queries.first_visible + (queries.count - 1))
    with serial(let(tirx.floordiv(last + (BLOCK - 1), BLOCK))) as block:
        part = scratch(size * heads.dim)
        parts = scratch(size * 2)
        _partial(queries, block, part, parts)
        for j in range(size):
            _merge(
                heads.dim,
                (total, totals),
                (let(i64(j * heads.dim)), let(i64(j * 2))),
                (part, parts),
                (let(i64(j * heads.dim)), let(i64(j * 2))),
            )
    for j in range(size):
        _divide(
            heads.dim, (total, totals), (let(i64(j * heads.dim)), let(i64(j * 2))), queries.step.y, queries.offset(j)
        )


def _split(step: _Step, task: Expr) -> None:
    """One block of one sequence with one key-value head, into the slot of that block."""
    heads = step.spec.heads
    slot, head = let(tirx.floordiv(task, heads.keys)), let(tirx.floormod(task, heads.keys))
    s = _sequence_of_slot(step, slot)
    block = let(slot - step.first_slot(s))
    length = step.length(s)

    def compute() -> None:
        part, parts = scratch(heads.group * heads.dim), scratch(heads.group * 2)
        _partial(_Queries(step, s, head, step.first_row(s), 1, length), block, part, parts)
        for j in range(heads.group):
            at = let(slot * heads.queries + head * heads.group + j)
            for c in range(heads.dim // LANES):
                step.o.store(at * heads.dim + c * LANES, part.load(j * heads.dim + c * LANES))
            step.ml.put(at * 2, parts.at(j * 2))
            step.ml.put(at * 2 + 1, parts.at(j * 2 + 1))

    branch(let(block * BLOCK < length), compute)


def _sequence_of_slot(step: _Step, slot: Expr) -> Expr:
    """The last sequence whose slots begin at or before `slot`."""
    cursor = scratch(1, "int64")
    cursor.put(0, i64(0))

    def next_begins_in_time() -> Expr:
        following = cursor.get(0) + i64(1)
        pages = tirx.Cast("int64", step.page_indptr.get(following))
        begins = tirx.floordiv(pages, i64(step.spec.block_pages)) + following
        return tirx.And(following < step.sequences, begins <= slot)

    with while_(next_begins_in_time):
        cursor.put(0, let(cursor.get(0) + i64(1)))
    return let(cursor.get(0))


def _merge_splits(step: _Step, task: Expr) -> None:
    """All blocks of one sequence and query head."""
    heads = step.spec.heads
    s, head = let(tirx.floordiv(task, heads.queries)), let(tirx.floormod(task, heads.queries))
    total, totals = scratch(heads.dim), scratch(2)
    _clear(1, heads.dim, total, totals)
    zero = let(i64(0))
    with serial(let(tirx.floordiv(step.length(s) + (BLOCK - 1), BLOCK))) as block:
        at = let((step.first_slot(s) + block) * heads.queries + head)
        _merge(heads.dim, (total, totals), (zero, zero), (step.o, step.ml), (let(at * heads.dim), let(at * 2)))
    out = let((step.first_row(s) * heads.queries + head) * heads.dim)
    _divide(heads.dim, (total, totals), (zero, zero), step.y, out)


# Partial results


def _partial(queries: _Queries, block: Expr, part: Span, parts: Span) -> None:
    """m, l (in `parts`) and o (in `part`) of every query over one block."""
    step = queries.step
    scores = scratch(queries.size * BLOCK)
    last = queries.visible(queries.size - 1, block)
    first_page = let(step.first_page(queries.sequence) + block * step.spec.block_pages)
    page_count = let(tirx.floordiv(last + (step.spec.pages.page_size - 1), step.spec.pages.page_size))
    _scores(queries, first_page, page_count, scores)
    vectors = let(page_count * (step.spec.pages.page_size // LANES))
    for j in range(queries.size):
        _softmax(scores, j * BLOCK, vectors, queries.visible(j, block), parts, j * 2)
    _weighted_values(queries, first_page, last, scores, part)


def _scores(queries: _Queries, first_page: Expr, page_count: Expr, scores: Span) -> None:
    """Scores of every query with whole pages of keys: sums over D of vectors over tokens."""
    step, pages, heads = queries.step, queries.step.spec.pages, queries.step.spec.heads
    halves = pages.page_size // LANES
    together = max(1, 12 // halves)  # queries whose sums stay in registers
    offsets = [queries.offset(j) for j in range(queries.size)]
    with serial(page_count) as index:
        keys = pages.keys(step.page(let(first_page + index)), queries.key_head)
        for begin in range(0, queries.size, together):
            chosen = range(begin, min(begin + together, queries.size))
            sums = registers(len(chosen) * halves, fill=splat(f32(0.0)))
            with serial(heads.dim) as d:
                column = [pages.load(step.pages, keys + d * pages.page_size + half * LANES) for half in range(halves)]
                for i, j in enumerate(chosen):
                    value = splat(step.q.at(offsets[j] + d))
                    for half in range(halves):
                        sums.put(i * halves + half, fma(value, column[half], sums.get(i * halves + half)))
            for i, j in enumerate(chosen):
                for half in range(halves):
                    at = index * pages.page_size + (j * BLOCK + half * LANES)
                    scores.store(at, let(sums.get(i * halves + half)))


def _softmax(scores: Span, base: int, vectors: Expr, visible: Expr, parts: Span, at: int) -> None:
    """Masks what the query does not see, leaves exp(score - m) in place, and m and the sum in `parts`."""
    largest = registers(1, fill=splat(f32(FLOOR)))
    lane = let(tirx.Ramp(i32(0), i32(1), LANES))
    limit = splat(cast(visible, "int32"))
    with serial(vectors) as v:
        index = let(lane + splat(cast(let(v * LANES), "int32")))
        score = select(index < limit, scores.load(base + v * LANES), splat(f32(MASKED)))
        scores.store(base + v * LANES, score)
        largest.put(0, let(tirx.max(largest.get(0), score)))
    m = max_lanes(let(largest.get(0)))
    total = registers(1, fill=splat(f32(0.0)))
    with serial(vectors) as v:
        weight = exp(let(scores.load(base + v * LANES) - splat(m)))
        scores.store(base + v * LANES, weight)
        total.put(0, let(total.get(0) + weight))
    parts.put(at, m)
    parts.put(at + 1, sum_lanes(let(total.get(0))))


def _weighted_values(queries: _Queries, first_page: Expr, last: Expr, weights: Span, part: Span) -> None:
    """o: values of the block's visible tokens, weighted. Never reads a slot that holds no token."""
    step, pages, heads = queries.step, queries.step.spec.pages, queries.step.spec.heads
    columns = heads.dim // LANES
    for begin in range(0, queries.size, 6):
        chosen = range(begin, min(begin + 6, queries.size))
        wide = max(1, min(columns, 12 // len(chosen)))
        for c in range(0, columns, wide):
            span = range(c, min(c + wide, columns))
            sums = registers(len(chosen) * len(span), fill=splat(f32(0.0)))

            def token(values: Expr, t: Expr, weight_at: Expr) -> None:
                row = [pages.load(step.pages, values + t * heads.dim + k * LANES) for k in span]  # noqa: B023
                for i, j in enumerate(chosen):  # noqa: B023
                    weight = splat(weights.at(weight_at + j * BLOCK))
                    for k in range(len(span)):  # noqa: B023
                        at = i * len(span) + k  # noqa: B023
                        sums.put(at, fma(weight, row[k], sums.get(at)))  # noqa: B023

            _for_tokens(step, queries.key_head, first_page, last, token)
            for i, j in enumerate(chosen):
                for k, column in enumerate(span):
                    part.store(j * heads.dim + column * LANES, let(sums.get(i * len(span) + k)))


def _for_tokens(
    step: _Step, head: Expr, first_page: Expr, count: Expr, body: Callable[[Expr, Expr, Expr], None]
) -> None:
    """Calls body(values of the page, token within it, token within the block) for `count` tokens."""
    size = step.spec.pages.page_size
    full = let(tirx.floordiv(count, size))
    with serial(full) as index:
        values = step.spec.pages.values(step.page(let(first_page + index)), head)
        with serial(size) as t:
            body(values, t, let(index * size + t))

    def rest() -> None:
        values = step.spec.pages.values(step.page(let(first_page + full)), head)
        with serial(let(count - full * size)) as t:
            body(values, t, let(full * size + t))

    branch(let(full * size < count), rest)


# Merging


def _clear(count: int, dim: int, total: Span, totals: Span) -> None:
    for j in range(count):
        for c in range(dim // LANES):
            total.store(j * dim + c * LANES, splat(f32(0.0)))
        totals.put(j * 2, f32(MASKED))
        totals.put(j * 2 + 1, f32(0.0))


def _merge(
    dim: int, into: tuple[Span, Span], at: tuple[Expr, Expr], part: tuple[Span, Span], part_at: tuple[Expr, Expr]
) -> None:
    """(m, l, o) of a part into the running one. A part that is masked throughout changes nothing, to the bit."""
    (o, ml), (o_at, ml_at) = into, at
    (part_o, part_ml), (part_o_at, part_ml_at) = part, part_at
    old, new = ml.at(ml_at), part_ml.at(part_ml_at)
    m = let(tirx.max(old, new))
    keep, add = exp(splat(let(old - m))), exp(splat(let(new - m)))
    sums = fma(splat(ml.at(ml_at + 1)), keep, let(splat(part_ml.at(part_ml_at + 1)) * add))
    ml.put(ml_at, m)
    ml.put(ml_at + 1, tirx.Shuffle([sums], [i32(0)]))
    for c in range(dim // LANES):
        value = let(part_o.load(part_o_at + c * LANES) * add)
        o.store(o_at + c * LANES, fma(o.load(o_at + c * LANES), keep, value))


def _divide(dim: int, total: tuple[Span, Span], at: tuple[Expr, Expr], y: Span, out: Expr) -> None:
    (o, ml), (o_at, ml_at) = total, at
    inverse = splat(let(f32(1.0) / ml.at(ml_at + 1)))
    for c in range(dim // LANES):
        y.store(out + c * LANES, let(o.load(o_at + c * LANES) * inverse))
