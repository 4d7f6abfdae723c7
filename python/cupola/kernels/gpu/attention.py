"""Causal attention over pages: tiles of rows for prompts, and parts of the context for decodes.

    tiles     some rows of one sequence with the query heads of one key-value head walk through the context together
    parts     of a sequence with one row, blocks of threads share the context, and a second grid merges what they found

A step may have both kinds of sequences: each grid passes over those of the other. Where a device has matrix units, they
do both (`attention_prompt.py`, `attention_decode.py`, `attention_latent.py`); what is here is for those that have none.
"""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, branch, i32, let
from cupola.kernels.gpu.attention_decode import parts_on_units
from cupola.kernels.gpu.attention_latent import fits_units, latent_parts, latent_tiles
from cupola.kernels.gpu.attention_merge import merge
from cupola.kernels.gpu.attention_prompt import tiles_on_units
from cupola.kernels.gpu.attention_spec import Attention as Attention
from cupola.kernels.gpu.attention_spec import Parts, has_one_row, sink_of
from cupola.kernels.gpu.attention_tile import THREADS, Queries, Shape, Tile
from cupola.kernels.gpu.attention_warp import CudaWarps, WarpUnit
from cupola.kernels.gpu.emit import kernel, last_beginning, launch, serial, size_var, slots, split, write
from cupola.kernels.gpu.pages import LatentPages, MatrixPages

TILE_TOKENS = 32


def attention(spec: Attention) -> tirx.PrimFunc:
    """(q, [r], pages, q_indptr, page_indptr, page_ids, kv_len, [sinks]) -> y and partials: see the module.

    q[n, H*D] is rotated and scaled; sinks float32[H]. Where keys are longer than values, queries have a second part
    r[n, H * what keys are longer]. The outputs are y[n, H*D] and working memory for what parts of the context give,
    partials float32[slots, H, D + 2]: sums of values, the largest score, the sum of weights. Slots as
    `Attention.slots` says.
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
        "partials": Arg((count, heads.queries, heads.dim + 2), "float32"),
    }

    def body(**t: Span) -> None:
        if not spec.decode:
            branch(let(n != b), lambda: _tiles(spec, t, n, b))
        _parts(spec, t, b, p)
        merge(spec, t, b)

    return kernel("attention_decode" if spec.decode else "attention", args, body)


def _tiles(spec: Attention, t: dict[str, Span], n: Expr, b: Expr) -> None:
    unit = _unit(spec)
    if unit is None:
        _plain_tiles(spec, t, n, b)
    elif isinstance(spec.pages, LatentPages):
        latent_tiles(spec, unit, t, n, b)
    else:
        tiles_on_units(spec, unit, t, n, b)


def _parts(spec: Attention, t: dict[str, Span], b: Expr, p: Expr) -> None:
    unit = _unit(spec)
    if unit is None:
        _plain_parts(spec, t, b, p)
    elif isinstance(spec.pages, LatentPages):
        latent_parts(spec, unit, t, b, p)
    else:
        parts_on_units(spec, unit, t, b, p)


def _unit(spec: Attention) -> WarpUnit | None:
    """The matrix units, where they fit these pages."""
    latents = isinstance(spec.pages, LatentPages) and fits_units(spec)
    if spec.gpu.matrix is None or not (latents or isinstance(spec.pages, MatrixPages)):
        return None
    return CudaWarps(spec.gpu.matrix.dtype)


def _plain_tiles(spec: Attention, t: dict[str, Span], n: Expr, b: Expr) -> None:
    shape, heads = Shape.of(spec.pages, spec.gpu, TILE_TOKENS), spec.pages.heads
    q_indptr = t["q_indptr"]
    sink = sink_of(spec, t)
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

        branch(let(tirx.And(skipped < rows, rows > 1)), run)


def _plain_parts(spec: Attention, t: dict[str, Span], b: Expr, p: Expr) -> None:
    """One part of the context of one sequence, into its slot."""
    shape, heads = Shape.of(spec.pages, spec.gpu, spec.split_tokens, rows=1), spec.pages.heads
    with launch(THREADS, spec.slots(p, b), heads.queries // shape.heads) as block:
        parts = Parts.of(spec, t, b)
        s = parts.sequence(block.x, b)
        index = let(block.x - parts.first_slot(s))
        first, stop = parts.seen(s)

        def run() -> None:
            head, seen = let(block.y * shape.heads), t["kv_len"].at(s)
            row = t["q_indptr"].at(s)
            queries = Queries(row, i32(1), head, split(head, heads.group)[0], seen, t["page_indptr"].at(s))
            tile = Tile.begin(shape, spec.pages, spec.window, spec.soft_cap, block, t, queries)
            tile.init(None)
            blocks = let(tirx.truncdiv(parts.tokens, i32(shape.tokens)))
            begin, (first_block, stop_block) = let(index * blocks), tile.blocks
            start = let(tirx.max(begin, first_block))
            with serial(tirx.min(begin + blocks, stop_block) - start) as i:
                tile.attend(let(start + i))
            tile.gather()
            base, width = let(block.x * heads.queries + head), heads.dim + 2
            tile.results(lambda j, d, value: t["partials"].put(let((base + j) * width + d), value))

            def state(j: Expr) -> None:
                t["partials"].put(let((base + j) * width + heads.dim), tile.largest(j))
                t["partials"].put(let((base + j) * width + heads.dim + 1), tile.total(j))

            block.each(shape.queries, state)

        one = has_one_row(t, s)
        branch(let(tirx.And(one, tirx.And(first <= index, index < stop))), run)
