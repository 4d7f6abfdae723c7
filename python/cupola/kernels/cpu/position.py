"""Rotary positions, and the append of new keys and values to their pages.

Frequencies depend on the model (theta, scaling) and come as a vector; cosines and sines are computed once a step for
the positions at hand and shared by all layers. Halves are rotated as Hugging Face does: (x[i], x[i + D/2]) is one pair
(Su et al., 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvm import tirx

from cupola.kernels.cpu.activation import NormSpec, norm_row
from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Index,
    Span,
    cast,
    f32,
    fma,
    for_each_row,
    kernel,
    let,
    scratch,
    serial,
    size_var,
    splat,
)
from cupola.kernels.cpu.pages import HeadShape, PageLayout

Write: TypeAlias = Callable[[Index, Expr], None]  # (offset in the head, eight values)


def rotary_table(half: int, magnitude: float) -> tirx.PrimFunc:
    """(positions int32[n], frequencies float32[D/2]) -> float32[n, 2, D/2]: cosines and sines, times `magnitude`."""
    n = size_var("n")

    def body(positions: Span, frequencies: Span, table: Span) -> None:
        def row(i: Expr) -> None:
            position = cast(positions.at(i), "float32")
            with serial(half) as j:
                angle = let(position * frequencies.at(j))
                table.put(i * (2 * half) + j, let(tirx.cos(angle) * f32(magnitude)))
                table.put(i * (2 * half) + half + j, let(tirx.sin(angle) * f32(magnitude)))

        for_each_row(n, row)

    args = {
        "positions": Arg((n,), "int32"),
        "frequencies": Arg((half,), "float32"),
        "table": Arg((n, 2, half), "float32"),
    }
    return kernel("rotary_table", args, body)


@dataclass(frozen=True)
class AppendSpec:
    """Where q, k and v lie in a row of the fused projection, and what happens to them on the way.

    Args:
        row_width: of the fused projection, padding included.
        rotary_dim: leading components of a head that are rotated.
        query_scale: factor on queries; None: 1/sqrt(D).
    """

    heads: HeadShape
    pages: PageLayout
    row_width: int
    rotary_dim: int
    query_scale: float | None = None

    @property
    def scale(self) -> float:
        """The factor on queries."""
        return self.heads.dim**-0.5 if self.query_scale is None else self.query_scale


def rotate_append(spec: AppendSpec) -> tirx.PrimFunc:
    """Rotates q and k, scales q, and writes k and v to their slots.

    (qkv float32[n, row_width], table if anything rotates, slots int32[n], pages) -> q float32[n, H, D]; `pages` is
    written in place.
    """
    n, num_pages = size_var("n"), size_var("num_pages")
    heads, pages = spec.heads, spec.pages
    half = spec.rotary_dim // 2

    def body(qkv: Span, slots: Span, pages_: Span, q: Span, table: Span | None = None) -> None:
        def row(i: Expr) -> None:
            slot = cast(slots.at(i), "int64")
            page, token = let(tirx.floordiv(slot, pages.page_size)), let(tirx.floormod(slot, pages.page_size))
            base = let(i * spec.row_width)

            def rotated(source: Expr, write: Write) -> None:
                rotate(qkv, source, table, let(i * (2 * half)), half, heads.dim, write)

            with serial(heads.queries) as h:
                out = let((i * heads.queries + h) * heads.dim)
                scale = splat(f32(spec.scale))
                rotated(let(base + h * heads.dim), lambda at, value: q.store(out + at, let(value * scale)))
            with serial(heads.keys) as h:
                key = scratch(heads.dim)
                rotated(let(base + (heads.queries + h) * heads.dim), key.store)
                pages.write_key(pages_, page, h, token, key.load)
                value = let(base + (heads.queries + heads.keys + h) * heads.dim)
                pages.write_value(pages_, page, h, token, lambda at: qkv.load(value + at))

        for_each_row(n, row)

    args = {
        "qkv": Arg((n, spec.row_width), "float32"),
        **({"table": Arg((n, 2, half), "float32")} if half else {}),
        "slots": Arg((n,), "int32"),
        "pages_": Arg((num_pages, pages.elements), pages.dtype),
        "q": Arg((n, heads.queries * heads.dim), "float32"),
    }
    return kernel("rotate_append", args, body)


@dataclass(frozen=True)
class HeadNormSpec:
    """Norms of q and k in a row of the fused projection.

    Args:
        row_width: of the fused projection, padding included.
        by_head: each head is normed by itself (Dehghani et al., 2023); else all heads of a row are together.
    """

    heads: HeadShape
    row_width: int
    by_head: bool
    eps: float
    centered: bool


def norm_heads(spec: HeadNormSpec) -> tirx.PrimFunc:
    """(qkv float32[n, row_width], q_norm, k_norm float32[heads * D]) -> qkv with q and k normed."""
    n = size_var("n")
    heads, norm = spec.heads, NormSpec(spec.eps, spec.centered)

    def body(qkv: Span, q_norm: Span, k_norm: Span, y: Span) -> None:
        def row(i: Expr) -> None:
            base = let(i * spec.row_width)

            def part(first: int, count: int, weight: Span) -> None:
                width, times = (heads.dim, count) if spec.by_head else (count * heads.dim, 1)
                with serial(times) as h:
                    start = let(base + first * heads.dim + h * width)
                    value = norm_row(width, norm, lambda at: qkv.load(start + at), weight, first=let(h * width))
                    with serial(width // LANES) as j:
                        y.store(start + j * LANES, value(let(j * LANES)))

            part(0, heads.queries, q_norm)
            part(heads.queries, heads.keys, k_norm)
            values = (heads.queries + heads.keys) * heads.dim
            with serial(heads.keys * heads.dim // LANES) as j:
                y.store(base + values + j * LANES, qkv.load(base + values + j * LANES))

        for_each_row(n, row)

    rows = Arg((n, spec.row_width), "float32")
    q_norm, k_norm = (Arg((count * heads.dim,), "float32") for count in (heads.queries, heads.keys))
    args = {"qkv": rows, "q_norm": q_norm, "k_norm": k_norm, "y": rows}
    return kernel("norm_heads", args, body)


def rotate(x: Span, source: Expr, table: Span | None, row: Expr, half: int, dim: int, write: Write) -> None:
    """Calls write(offset in head, eight values) for one head; values past the rotary part pass unchanged."""
    if table is not None:
        with serial(half // LANES) as j:
            cos, sin = table.load(row + j * LANES), table.load(row + half + j * LANES)
            a, b = x.load(source + j * LANES), x.load(source + half + j * LANES)
            write(j * LANES, fma(a, cos, let(-let(b * sin))))
            write(half + j * LANES, fma(b, cos, let(a * sin)))
    if dim > 2 * half:
        with serial(dim // LANES, start=2 * half // LANES) as j:
            write(j * LANES, x.load(source + j * LANES))
