"""Rows of tables: token embeddings out of packed weights, and the rows of a step of which logits are wanted."""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, f32, let
from cupola.kernels.gpu.emit import ceildiv, kernel, launch, read, size_var, split, write
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.layouts import OUT_BLOCK

THREADS = 128


def embed(table: Packed, scale: float) -> tirx.PrimFunc:
    """(ids int32[n], packed table of [vocabulary, width]) -> scale * table[ids], float32[n, width]."""
    n, width = size_var("n"), table.inputs

    def body(ids: Span, w: Span, y: Span) -> None:
        with launch(THREADS, n) as block:
            index, output = split(ids.at(block.x), OUT_BLOCK)

            def unit(k: Expr) -> None:
                found = table.unit(w, index, k, output, 1)
                for i, at in enumerate(found.inputs):
                    value = found.value(0, i)
                    y.put(let(block.x * width + at), value if scale == 1 else let(value * f32(scale)))

            block.each(table.units, unit)

    args = {"ids": Arg((n,), "int32"), "w": Arg(table.shape, table.dtype), "y": Arg((n, width), "float32")}
    return kernel(f"embed_{table.format.value}", args, body)


def take(width: int, dtype: str) -> tirx.PrimFunc:
    """(x[n, width], rows int32[m]) -> x[rows], [m, width]."""
    n, m = size_var("n"), size_var("m")

    def body(x: Span, rows: Span, y: Span) -> None:
        with launch(THREADS, m) as block:
            source, target = let(rows.at(block.x) * width), let(block.x * width)
            block.each(width, lambda k: y.put(target + k, x.at(source + k)))

    args = {"x": Arg((n, width), dtype), "rows": Arg((m,), "int32"), "y": Arg((m, width), dtype)}
    return kernel("take_rows", args, body)


def add_rows(count: int, width: int) -> tirx.PrimFunc:
    """(x float32[n, width], table float32[count, width], rows int32[n]) -> x + table[rows], float32[n, width]."""
    n = size_var("n")

    def body(x: Span, table: Span, rows: Span, y: Span) -> None:
        with launch(THREADS, n) as block:
            source, target = let(rows.at(block.x) * width), let(block.x * width)
            block.each(width, lambda k: y.put(target + k, let(x.at(target + k) + table.at(source + k))))

    args = {"x": Arg((n, width), "float32"), "table": Arg((count, width), "float32"), "rows": Arg((n,), "int32")}
    return kernel("add_rows", args | {"y": Arg((n, width), "float32")}, body)


def convert(width: int, source: str, target: str) -> tirx.PrimFunc:
    """x[n, width] in another type."""
    n = size_var("n")

    def body(x: Span, y: Span) -> None:
        with launch(THREADS, ceildiv(n * width, THREADS)) as block:
            # A last block that has too little to do does the last element again.
            at = let(tirx.min(block.x * THREADS + block.thread, n * width - 1))
            write(y, at, read(x, at))

    return kernel(f"to_{target}", {"x": Arg((n, width), source), "y": Arg((n, width), target)}, body)
