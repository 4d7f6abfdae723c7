"""Causal attention over pages: one kernel for prefill, chunks of it, decodes, and any mixture.

The context is cut into blocks at fixed places. For each block a row of queries gets a partial result
(`attention_block.py`), and the partials are merged in the order of the blocks (Milakov and Gimelshein, 2018; Dao,
2022). Work is dealt out in one of two ways:

    tiles    a few rows of one sequence and all query heads of one key-value head walk through the blocks together
    splits   when every sequence has one row and there are few of them, threads share the blocks of a long context,
             and a second stage merges the partials

Both do the same operations in the same order for a row, and masked scores weigh exactly nothing, so that a row's result
does not depend on the road, on the chunking of the prompt, or on other rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from tvm import tirx

from cupola.kernels.cpu.attention_block import Task, part_of
from cupola.kernels.cpu.attention_merge import begin, finish, merge
from cupola.kernels.cpu.attention_step import BLOCK, AttentionSpec, Begin, Coming, Part, Queries, Step
from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Index,
    Span,
    branch,
    i64,
    kernel,
    let,
    parallel,
    region,
    scratch,
    select,
    serial,
    size_var,
    while_,
)
from cupola.kernels.cpu.isa import Isa

__all__ = ["BLOCK", "AttentionSpec", "attention", "paged_attention", "split_slots"]

FEW_TASKS = 64  # sequences times key-value heads up to which a decode is split over the context
DEAL = (0, 4, 2, 6, 1, 5, 3, 7)  # hands of split tasks, in an order in which neighbours are far apart


def split_slots(total_pages: Index, sequences: Index, block_pages: int) -> Index:
    """Upper bound of the blocks in all contexts, exact for one sequence.

    Asked for the pages before sequence s and for s, it is the first slot of s: no two sequences share one.
    """
    return tirx.floordiv(total_pages + sequences * (block_pages - 1), block_pages)


def attention(spec: AttentionSpec, isa: Isa) -> tirx.PrimFunc:
    """(q, pages, q_indptr, page_indptr, page_ids, kv_len, [sinks]) -> y and partials: see the module.

    q float32[n, H*D] is rotated and scaled; sinks float32[H], where the spec says so. The outputs are y float32[n, H*D]
    and working memory for the partials: o float32[slots, H*D] and ml float32[slots, H, 2], slots as `split_slots` says.
    """
    return paged_attention("attention", spec, isa, {"q": spec.heads.queries * spec.heads.dim}, Step, Task.of)


def paged_attention(
    name: str, spec: AttentionSpec, isa: Isa, queries: Mapping[str, int], step_type: type[Step], begin_task: Begin
) -> tirx.PrimFunc:
    """The kernel, whatever a query is and however it meets a block.

    Args:
        queries: the arguments that queries are read from, float32 [n, this many].
        step_type: the arguments of a call; it has the queries' names.
        begin_task: starts some queries' way through the context.
    """
    n, b, p, num_pages = size_var("n"), size_var("b"), size_var("p"), size_var("num_pages")
    b1 = size_var("b1")
    heads = spec.heads
    width = heads.queries * heads.dim
    slots = size_var("slots")
    args = {
        **{query: Arg((n, elements), "float32") for query, elements in queries.items()},
        "pages": Arg((num_pages, spec.pages.elements), spec.pages.dtype),
        "q_indptr": Arg((b1,), "int32"),
        "page_indptr": Arg((b1,), "int32"),
        "page_ids": Arg((p,), "int32"),
        "kv_len": Arg((b,), "int32"),
        **({"sinks": Arg((heads.queries,), "float32")} if spec.sinks else {}),
        "y": Arg((n, width), "float32"),
        "o": Arg((slots, width), "float32"),
        "ml": Arg((slots, heads.queries, 2), "float32"),
    }

    def body(**t: Span) -> None:
        step = step_type(spec, isa, begin=begin_task, rows=n, sequences=b, page_count=p, **t)
        splits = let(tirx.And(n == b, b * heads.keys <= i64(FEW_TASKS)))
        tile_count = let(tirx.floordiv(n + (spec.tile_rows - 1), spec.tile_rows))
        split_count = let(split_slots(p, b, spec.block_pages) * heads.keys)
        tasks = select(splits, split_count, tile_count * heads.keys)
        merges = select(splits, b * heads.queries, i64(0))
        with region():
            with parallel(tasks) as task:
                branch(splits, lambda: _split(step, split_count, task), lambda: _tile(step, tile_count, task))
            with parallel(merges) as task:
                _merge_splits(step, task)

    return kernel(name, args, body)


# Tiles


def _tile(step: Step, count: Expr, task: Expr) -> None:
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


def _advance_to_sequence_of(step: Step, cursor: Span) -> None:
    with while_(lambda: tirx.Cast("int64", step.q_indptr.get(cursor.get(1) + i64(1))) <= cursor.get(0)):
        cursor.put(1, let(cursor.get(1) + i64(1)))


def _tile_rows_of_one_sequence(step: Step, cursor: Span, end: Expr, head: Expr) -> None:
    row, s = let(cursor.get(0)), let(cursor.get(1))
    tile_rows = step.spec.tile_rows
    stop = let(tirx.min(end, step.first_row(let(s + 1))))
    # The sequence's last row sees all of it.
    seen = let(step.length(s) - (step.first_row(let(s + 1)) - row) + 1)

    def walk(rows: int) -> None:
        _walk(step, Queries(step, s, head, row, rows, seen))
        cursor.put(0, let(row + rows))

    # A branch even for tiles of one row: TVM frees workspace at the end of a branch or a for loop, not of a while loop.
    alone = None if tile_rows == 1 else lambda: walk(1)
    branch(let(stop - row >= i64(tile_rows)), lambda: walk(tile_rows), alone)


def _walk(step: Step, queries: Queries) -> None:
    """All blocks of one tile, merged as they come."""
    dim = step.spec.heads.dim

    def next_block(block: Expr) -> Coming:
        return Coming(let(step.first_page(queries.sequence) + (block + 1) * step.spec.block_pages), queries.key_head)

    total, task = part_of(queries.size, dim), step.begin(queries, next_block if queries.count == 1 else None)
    with serial(queries.size) as j:
        begin(dim, total, j, step.sink(queries.head_of(j)))
    first, stop = queries.blocks
    with serial(stop, start=first) as block:
        task.attend(block)
        with serial(queries.size) as j:
            merge(dim, total, j, task.part, j)
    with serial(queries.size) as j:
        finish(dim, total, j, step.y, queries.offset(j))


# Splits


def _split(step: Step, count: Expr, task: Expr) -> None:
    """One block of one sequence with one key-value head, into the slot of that block."""
    heads = step.spec.heads
    slot, head, s, block = _dealt(step, count, task)
    queries = Queries(step, s, head, step.first_row(s), 1, step.length(s))

    def next_task(_: Expr) -> Coming:
        _, head, s, block = _dealt(step, count, let(tirx.min(task + 1, count - 1)))
        return Coming(let(step.first_page(s) + block * step.spec.block_pages), head)

    def compute() -> None:
        mine = step.begin(queries, next_task)
        mine.attend(block)
        part = mine.part
        with serial(heads.group) as j:
            at = let(slot * heads.queries + queries.head_of(j))
            for c in range(heads.dim // LANES):
                step.o.store(at * heads.dim + c * LANES, part.o.load(j * heads.dim + c * LANES))
            step.ml.put(at * 2, part.ml.at(j * 2))
            step.ml.put(at * 2 + 1, part.ml.at(j * 2 + 1))

    first, stop = queries.blocks
    branch(let(tirx.And(first <= block, block < stop)), compute)


def _dealt(step: Step, count: Expr, task: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """(slot, key-value head, sequence, block) of a task."""
    keys, dealt = step.spec.heads.keys, _deal(count, task)
    slot, head = let(tirx.floordiv(dealt, keys)), let(tirx.floormod(dealt, keys))
    s = _sequence_of_slot(step, slot)
    return slot, head, s, let(slot - _first_slot(step, s))


def _deal(count: Expr, task: Expr) -> Expr:
    """Another order of the tasks, in which each share of them has its part of the short blocks at the contexts' ends:
    every eighth task from the first on, then every eighth from the fifth on, and so forth."""
    cells = scratch(2, "int64")  # tasks to pass over, the task dealt: in memory, where TVM's prover does not follow
    cells.put(0, task)
    cells.put(1, i64(0))
    for hand in DEAL:
        left = cells.at(0)
        size = let(tirx.floordiv(count + (len(DEAL) - 1 - hand), len(DEAL)))
        mine = tirx.And(left >= i64(0), left < size)
        cells.put(1, select(mine, let(left * len(DEAL) + hand), cells.at(1)))
        cells.put(0, let(left - size))
    return cells.at(1)


def _first_slot(step: Step, s: Expr) -> Expr:
    return let(split_slots(step.first_page(s), s, step.spec.block_pages))


def _sequence_of_slot(step: Step, slot: Expr) -> Expr:
    """The last sequence whose slots begin at or before `slot`."""
    cursor = scratch(1, "int64")
    cursor.put(0, i64(0))

    def next_begins_in_time() -> Expr:
        following = cursor.get(0) + i64(1)
        pages = tirx.Cast("int64", step.page_indptr.get(following))
        begins = split_slots(pages, following, step.spec.block_pages)
        return tirx.And(following < step.sequences, begins <= slot)

    with while_(next_begins_in_time):
        cursor.put(0, let(cursor.get(0) + i64(1)))
    return let(cursor.get(0))


def _merge_splits(step: Step, task: Expr) -> None:
    """All blocks of one sequence and query head."""
    heads = step.spec.heads
    s, head = let(tirx.floordiv(task, heads.queries)), let(tirx.floormod(task, heads.queries))
    total = part_of(1, heads.dim)
    zero = let(i64(0))
    begin(heads.dim, total, zero, step.sink(head))
    length = step.length(s)
    slot, row = _first_slot(step, s), step.first_row(s)
    first, stop = Queries(step, s, head, row, 1, length).blocks
    with serial(stop, start=first) as block:
        merge(heads.dim, total, zero, Part(step.o, step.ml), let((slot + block) * heads.queries + head))
    finish(heads.dim, total, zero, step.y, let((row * heads.queries + head) * heads.dim))
