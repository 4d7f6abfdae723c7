"""Latent attention on its way to and from the pages: new rows, queries, and the products of each head.

What the arithmetic is about says `kernels/latent_operations.py`; attention itself is that of `attention.py`, over pages
whose keys are longer than their values.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, branch, f32, i32, let
from cupola.kernels.gpu.emit import ceildiv, kernel, launch, read, shared, size_var, split, write
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import FEW, TILE_ROWS, TILE_THREADS
from cupola.kernels.gpu.linear_rows import MOST_ROWS, FewRows, within
from cupola.kernels.gpu.linear_tile import BLOCKS, Tile
from cupola.kernels.gpu.norm import NormSpec, norm_row
from cupola.kernels.gpu.pages import LatentPages
from cupola.kernels.gpu.position import THREADS, rotate
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.kernels.latent_shape import LatentShape
from cupola.quantize.layouts import OUT_BLOCK


def append_latent(pages: LatentPages, row_width: int, norm: NormSpec, dtype: str, most_threads: int) -> tirx.PrimFunc:
    """(x[n, row_width], weight float32[latent], table float32[n, 2, rotary/2], slots int32[n], pages): c behind its
    norm and k rotated go to their slots; `pages` is written in place."""
    n, num_pages = size_var("n"), size_var("num_pages")
    latent, half, threads = pages.heads.dim, pages.rotary // 2, norm.threads(most_threads)

    def body(x: Span, weight: Span, table: Span, slots: Span, pages_: Span) -> None:
        with launch(threads, n) as block:
            row, memory = let(block.x * row_width), shared(threads)
            page, token = split(slots.at(block.x), pages.page_size)
            start = pages.head(page, i32(0))

            def store(at: Expr, value: Expr) -> None:
                write(pages_, pages.key(start, at, token), value)

            def rotary(d: Expr) -> None:
                at = let(row + latent + d)
                store(let(latent + d), rotate(x, at, d, table, let(block.x * (2 * half)), half, 2 * half))

            norm_row(block, memory, norm, lambda at: read(x, row + at), weight, None, store)
            block.each(pages.rotary, rotary)

    args = {
        "x": Arg((n, row_width), dtype),
        "weight": Arg((latent,), "float32"),
        "table": Arg((n, 2, half), "float32"),
        "slots": Arg((n,), "int32"),
        "pages_": Arg((num_pages, pages.elements), pages.dtype),
    }
    return kernel("append_latent", args, body)


def split_queries(shape: LatentShape, row_width: int, scale: float, dtype: str) -> tirx.PrimFunc:
    """(x[n, row_width], table float32[n, 2, rotary/2]) -> q[n, H * plain], r[n, H * rotary], rotated; both times
    `scale`."""
    n = size_var("n")
    half, components = shape.rotary // 2, shape.heads * shape.query

    def body(x: Span, table: Span, q: Span, r: Span) -> None:
        with launch(THREADS, n, ceildiv(components, THREADS)) as block:
            at = let(block.y * THREADS + block.thread)
            head, d = split(at, shape.query)
            source, index = let(block.x * row_width + at), let(block.x * shape.heads + head)

            def plain() -> None:
                write(q, let(index * shape.plain + d), let(read(x, source) * f32(scale)))

            def rotary() -> None:
                component = let(d - shape.plain)
                value = rotate(x, source, component, table, let(block.x * (2 * half)), half, 2 * half)
                write(r, let(index * shape.rotary + component), let(value * f32(scale)))

            branch(at < components, lambda: branch(d < shape.plain, plain, rotary))

    args = {
        "x": Arg((n, row_width), dtype),
        "table": Arg((n, 2, half), "float32"),
        "q": Arg((n, shape.heads * shape.plain), dtype),
        "r": Arg((n, shape.heads * shape.rotary), dtype),
    }
    return kernel("split_queries", args, body)


@dataclass(frozen=True)
class ByHead:
    """The products of all heads: row i, head h of x times W_h.

    A row's heads lie one after the other, so that to a product the head h of row i is the row i * heads + h.

    Args:
        matrix: the heads' matrices, one below the other.
        dtype: of what goes in and comes out.
    """

    matrix: Packed
    heads: int
    dtype: str
    gpu: Gpu

    @property
    def blocks(self) -> int:
        """Blocks of outputs of a head."""
        return self.matrix.blocks // self.heads

    @property
    def ending(self) -> Ending:
        return Ending(self.matrix.outputs, self.matrix.outputs)

    def few(self, n: Expr, spans: dict[str, Span], rows: int) -> None:
        """Launches a grid that takes `rows` rows at a time."""
        way = FewRows.of(self.matrix, self.gpu.threads)
        with launch(way.threads, self.heads * self.blocks, ceildiv(n, rows)) as block:
            head, first = split(block.x, self.blocks)[0], let(block.y * rows)
            mine = [let(within(first + r, n) * self.heads + head) for r in range(rows)]

            def finish(r: int, output: Expr, sums: tuple[Expr, ...]) -> None:
                row, place = let(first + r), let(block.x * OUT_BLOCK + output)
                branch(row < n, lambda: self.ending.store(spans, row, place, sums))

            way.run(block, spans["x"], spans["w"], mine, [block.x], finish)

    def many(self, n: Expr, spans: dict[str, Span], rows: int) -> None:
        """Launches a grid of tiles of `rows` rows, each of one head."""
        tile, across = Tile(self.matrix, rows, TILE_THREADS), -(-self.blocks // BLOCKS)
        with launch(TILE_THREADS, self.heads * across, ceildiv(n, rows)) as block:
            head, part = split(block.x, across)
            first_row, first_block = let(block.y * rows), let(part * BLOCKS)

            def place(b: Expr) -> Expr:
                return let(head * self.blocks + tirx.min(first_block + b, i32(self.blocks - 1)))

            def finish(r: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
                row = let(first_row + r)
                for b, total in enumerate(sums):
                    index = let(first_block + b)

                    def store(total: Expr = total, index: Expr = index) -> None:
                        at = let((head * self.blocks + index) * OUT_BLOCK + output)
                        self.ending.store(spans, row, at, (total,))

                    branch(let(tirx.And(row < n, index < self.blocks)), store)

            def row_of(r: Expr) -> Expr:
                return let(within(first_row + r, n) * self.heads + head)

            tile.run(block, spans["x"], spans["w"], row_of, place, finish)


def linear_by_head(spec: ByHead) -> tirx.PrimFunc:
    """(x[n, H * K], w packed [H * N, K]) -> y[n, H * N]."""
    n = size_var("n")
    args = {
        "x": Arg((n, spec.heads * spec.matrix.inputs), spec.dtype),
        "w": Arg(spec.matrix.shape, spec.matrix.dtype),
        "y": Arg((n, spec.matrix.outputs), spec.dtype),
    }

    def body(**spans: Span) -> None:
        small, large = TILE_ROWS

        def most() -> None:
            branch(n <= 2 * small, lambda: spec.many(n, spans, small), lambda: spec.many(n, spans, large))

        def more() -> None:
            branch(n <= FEW, lambda: spec.few(n, spans, MOST_ROWS), most)

        branch(n <= 1, lambda: spec.few(n, spans, 1), more)

    return kernel(f"by_head_{spec.matrix.format.value}", args, body)
