"""Latent attention on its way to and from the pages: new rows, queries, and the products of each head.

What the arithmetic is about says `kernels/latent_operations.py`; attention itself is in `latent_attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.activation import NormSpec, norm_row
from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Span,
    cast,
    f32,
    for_each_row,
    kernel,
    lanes_of,
    let,
    parallel,
    region,
    scratch,
    serial,
    size_var,
    splat,
)
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.latent_pages import LatentLayout
from cupola.kernels.cpu.linear import input_args, product_of
from cupola.kernels.cpu.linear_spec import LinearSpec, Rows
from cupola.kernels.cpu.position import rotate
from cupola.kernels.latent_shape import LatentShape
from cupola.quantize.formats import Format
from cupola.quantize.layouts import OUT_BLOCK, packed_dtype, packed_shape


def append_latent(layout: LatentLayout, row_width: int, eps: float) -> tirx.PrimFunc:
    """(x float32[n, row_width], weight float32[latent], table float32[n, 2, rotary/2], slots int32[n], pages): c behind
    its norm and k rotated go to their slots; `pages` is written in place."""
    n, num_pages = size_var("n"), size_var("num_pages")
    latent, half = layout.heads.dim, layout.rotary // 2

    def body(x: Span, weight: Span, table: Span, slots: Span, pages: Span) -> None:
        def row(i: Expr) -> None:
            slot, base = cast(slots.at(i), "int64"), let(i * row_width)
            stored = scratch(layout.row)
            value = norm_row(latent, NormSpec(eps), lambda at: x.load(base + at), weight)
            with serial(latent // LANES) as j:
                stored.store(j * LANES, value(let(j * LANES)))
            key = let(base + latent)
            rotate(x, key, table, let(i * (2 * half)), half, 2 * half, lambda at, v: stored.store(latent + at, v))
            page, token = let(tirx.floordiv(slot, layout.page_size)), let(tirx.floormod(slot, layout.page_size))
            layout.write(pages, page, token, stored.load)

        for_each_row(n, row)

    args = {
        "x": Arg((n, row_width), "float32"),
        "weight": Arg((latent,), "float32"),
        "table": Arg((n, 2, half), "float32"),
        "slots": Arg((n,), "int32"),
        "pages": Arg((num_pages, layout.elements), layout.dtype),
    }
    return kernel("append_latent", args, body)


def split_queries(shape: LatentShape, row_width: int, scale: float) -> tirx.PrimFunc:
    """(x float32[n, row_width], table float32[n, 2, rotary/2]) -> q float32[n, H * plain], r float32[n, H * rotary],
    rotated; both times `scale`."""
    n = size_var("n")
    half = shape.rotary // 2

    def body(x: Span, table: Span, q: Span, r: Span) -> None:
        def row(i: Expr) -> None:
            factor = splat(f32(scale))
            with serial(shape.heads) as h:
                source, index = let(i * row_width + h * shape.query), let(i * shape.heads + h)
                with serial(shape.plain // LANES) as j:
                    q.store(index * shape.plain + j * LANES, let(x.load(source + j * LANES) * factor))
                out = let(index * shape.rotary)
                rotate(
                    x,
                    let(source + shape.plain),
                    table,
                    let(i * (2 * half)),
                    half,
                    2 * half,
                    lambda at, value: r.store(out + at, let(value * factor)),
                )

        for_each_row(n, row)

    args = {
        "x": Arg((n, row_width), "float32"),
        "table": Arg((n, 2, half), "float32"),
        "q": Arg((n, shape.heads * shape.plain), "float32"),
        "r": Arg((n, shape.heads * shape.rotary), "float32"),
    }
    return kernel("split_queries", args, body)


@dataclass(frozen=True)
class ByHeadSpec:
    """The products of all heads.

    Args:
        inputs, outputs: K and N of one head; N is a multiple of OUT_BLOCK.
    """

    format: Format
    heads: int
    inputs: int
    outputs: int


def linear_by_head(spec: ByHeadSpec, isa: Isa) -> tirx.PrimFunc:
    """(x or q, s, w packed [H * N, K]) -> y float32[n, H * N]: row i, head h of x times W_h.

    A row's heads lie one after the other, so that to a product the head h of row i is the row i * H + h.
    """
    n = size_var("n")
    width, blocks = spec.heads * spec.outputs, spec.outputs // OUT_BLOCK
    whole = LinearSpec(spec.format, spec.inputs, width)

    def body(**spans: Span) -> None:
        def finish(row: Expr, part: int, sums: Expr, block: Expr) -> None:
            spans["y"].store(row * width + block * OUT_BLOCK + part * lanes_of(sums), sums)

        with region(), parallel(whole.blocks) as block:
            head = let(tirx.floordiv(block, blocks))
            rows = Rows(n, lambda i: i * spec.heads + head)
            product = product_of(whole, isa, rows, spans)
            product(block, lambda row, part, sums: finish(row, part, sums, block))

    args = input_args(spec.format, n, spec.heads * spec.inputs)
    args["w"] = Arg(packed_shape(spec.format, (width, spec.inputs)), packed_dtype(spec.format).name)
    args["y"] = Arg((n, width), "float32")
    return kernel(f"{whole.name}_by_head", args, body)
