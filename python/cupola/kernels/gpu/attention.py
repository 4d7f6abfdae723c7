"""Causal attention over pages: tiles of rows for prompts, and blocks of the context for decodes.

    tiles     some rows of one sequence with the query heads of one key-value head walk through the context together
    splits    where every sequence has one row, blocks of threads share the context, and a second grid merges what
              they found

A device with instructions for tiles of matrices brings a way of its own for prompts: `_tiles` is the place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, branch, f32, i32, let
from cupola.kernels.gpu.attention_tile import THREADS, Queries, Shape, Tile, seen_blocks
from cupola.kernels.gpu.emit import (
    MASKED,
    kernel,
    last_beginning,
    launch,
    madd,
    registers,
    serial,
    size_var,
    slots,
    split,
    write,
    zero,
)
from cupola.kernels.gpu.functions import exp
from cupola.kernels.gpu.pages import GpuPages
from cupola.kernels.gpu.trait import Gpu

TILE_TOKENS = 32
SPLIT_TOKENS = 128


@dataclass(frozen=True)
class Attention:
    """The attention of one layer.

    Args:
        window, soft_cap: as in `Operations.attention`.
        dtype: of q and y.
        decode: every sequence has one row, always.
    """

    pages: GpuPages
    gpu: Gpu
    dtype: str
    window: int = 0
    soft_cap: float = 0.0
    sinks: bool = False
    decode: bool = False

    @property
    def tile(self) -> Shape:
        return Shape.of(self.pages, self.gpu, TILE_TOKENS)

    @property
    def split(self) -> Shape:
        return Shape.of(self.pages, self.gpu, SPLIT_TOKENS, rows=1)

    @property
    def split_pages(self) -> int:
        return self.split.tokens // self.pages.page_size


def attention(spec: Attention) -> tirx.PrimFunc:
    """(q, [r], pages, q_indptr, page_indptr, page_ids, kv_len, [sinks]) -> y and partials: see the module.

    q[n, H*D] is rotated and scaled; sinks float32[H]. Where keys are longer than values, queries have a second part
    r[n, H * what keys are longer]. The outputs are y[n, H*D] and working memory for partials:
    o float32[slots, H*D] and ml float32[slots, H, 2], slots as `slots(p, b, split_pages)` says.
    """
    b = size_var("b")
    n = b if spec.decode else size_var("n")
    p, b1, num_pages, count = size_var("p"), size_var("b1"), size_var("num_pages"), size_var("slots")
    heads = spec.pages.heads
    width, rest = heads.queries * heads.dim, heads.queries * (spec.pages.key_dim - heads.dim)
    args = {
        "q": Arg((n, width), spec.dtype),
        **({"r": Arg((n, rest), spec.dtype)} if rest else {}),
        "pages": Arg((num_pages, spec.pages.elements), spec.pages.dtype),
        "q_indptr": Arg((b1,), "int32"),
        "page_indptr": Arg((b1,), "int32"),
        "page_ids": Arg((p,), "int32"),
        "kv_len": Arg((b,), "int32"),
        **({"sinks": Arg((heads.queries,), "float32")} if spec.sinks else {}),
        "y": Arg((n, width), spec.dtype),
        "o": Arg((count, width), "float32"),
        "ml": Arg((count, heads.queries, 2), "float32"),
    }

    def body(**t: Span) -> None:
        def decode() -> None:
            _splits(spec, t, b, p)
            _merge(spec, t, b)

        if spec.decode:
            decode()
        else:
            branch(let(n == b), decode, lambda: _tiles(spec, t, n, b))

    return kernel("attention_decode" if spec.decode else "attention", args, body)


def _tiles(spec: Attention, t: dict[str, Span], n: Expr, b: Expr) -> None:
    shape, heads = spec.tile, spec.pages.heads
    q_indptr = t["q_indptr"]
    sink = _sink(spec, t)
    with launch(THREADS, slots(n, b, shape.rows), heads.queries // shape.heads) as block:
        s = last_beginning(block.x, b, lambda s: let(slots(q_indptr.at(s), s, shape.rows)))
        begin = q_indptr.at(s)
        rows = let(q_indptr.at(s + 1) - begin)
        skipped = let((block.x - slots(begin, s, shape.rows)) * shape.rows)

        def run() -> None:
            head = let(block.y * shape.heads)
            queries = Queries(
                first_row=let(begin + skipped),
                rows=let(tirx.min(rows - skipped, i32(shape.rows))),
                first_head=head,
                key_head=split(head, heads.group)[0],
                first_seen=let(t["kv_len"].at(s) - rows + skipped + 1),
                first_page=t["page_indptr"].at(s),
            )
            tile = Tile.begin(shape, spec.pages, spec.window, spec.soft_cap, block, t, queries)
            tile.init(sink)
            first, stop = tile.blocks
            with serial(stop - first) as i:
                tile.attend(let(first + i))
            tile.gather()

            def store(j: int, component: Expr, value: Expr) -> None:
                row, place = let(queries.first_row + j // shape.heads), let(head + j % shape.heads)
                at = let((row * heads.queries + place) * heads.dim + component)
                write(t["y"], at, let(value / tile.total(j)))

            tile.results(store)

        branch(let(skipped < rows), run)


def _splits(spec: Attention, t: dict[str, Span], b: Expr, p: Expr) -> None:
    """One block of the context of one sequence, into the slot of that block."""
    shape, heads = spec.split, spec.pages.heads
    with launch(THREADS, slots(p, b, spec.split_pages), heads.queries // shape.heads) as block:
        s = last_beginning(block.x, b, lambda s: _first_slot(spec, t, s))
        index = let(block.x - _first_slot(spec, t, s))
        seen = t["kv_len"].at(s)
        first, stop = seen_blocks(seen, seen, spec.window, shape.tokens)

        def run() -> None:
            head = let(block.y * shape.heads)
            queries = Queries(s, i32(1), head, split(head, heads.group)[0], seen, t["page_indptr"].at(s))
            tile = Tile.begin(shape, spec.pages, spec.window, spec.soft_cap, block, t, queries)
            tile.init(None)
            tile.attend(index)
            tile.gather()
            base = let(block.x * heads.queries + head)
            tile.results(lambda j, d, value: t["o"].put(let((base + j) * heads.dim + d), value))

            def state(j: Expr) -> None:
                t["ml"].put(let((base + j) * 2), tile.largest(j))
                t["ml"].put(let((base + j) * 2 + 1), tile.total(j))

            block.each(shape.queries, state)

        branch(let(tirx.And(first <= index, index < stop)), run)


def _merge(spec: Attention, t: dict[str, Span], b: Expr) -> None:
    """All blocks of one sequence and query head."""
    heads, sink = spec.pages.heads, _sink(spec, t)
    with launch(THREADS, b, heads.queries) as block:
        s, head = block.x, block.y
        seen, slot = t["kv_len"].at(s), _first_slot(spec, t, s)
        first, stop = seen_blocks(seen, seen, spec.window, spec.split.tokens)
        state = registers(2)  # largest score, sum of weights
        state.put(0, f32(MASKED) if sink is None else sink(head))
        state.put(1, zero() if sink is None else f32(1.0))

        def place(i: Expr) -> Expr:
            return let((slot + first + i) * heads.queries + head)

        with serial(stop - first) as i:
            at = place(i)
            largest = let(tirx.max(state.at(0), t["ml"].at(at * 2)))
            mine = let(t["ml"].at(at * 2 + 1) * exp(let(t["ml"].at(at * 2) - largest)))
            state.put(1, madd(state.at(1), exp(let(state.at(0) - largest)), mine))
            state.put(0, largest)

        def component(d: Expr) -> None:
            total = registers(1, fill=zero())
            with serial(stop - first) as i:
                at = place(i)
                weight = exp(let(t["ml"].at(at * 2) - state.at(0)))
                total.put(0, madd(t["o"].at(at * heads.dim + d), weight, total.at(0)))
            write(t["y"], let((s * heads.queries + head) * heads.dim + d), let(total.at(0) / state.at(1)))

        block.each(heads.dim, component)


def _first_slot(spec: Attention, t: dict[str, Span], s: Expr) -> Expr:
    return let(slots(t["page_indptr"].at(s), s, spec.split_pages))


def _sink(spec: Attention, t: dict[str, Span]) -> Callable[[Expr], Expr] | None:
    """The logits of heads that have no value."""
    return (lambda head: t["sinks"].at(head)) if spec.sinks else None
