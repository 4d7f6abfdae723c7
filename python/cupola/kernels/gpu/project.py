"""The product with the matrix of queries, keys and values, and what becomes of them: one kernel where rows are few.

A block of threads that has both halves of what rotates together (`position.py`) can rotate what it has summed up, and
writes queries, and keys and values to their slots, itself. Many rows take two kernels, as they do on devices without
matrix units.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Expr, Span, branch, f32, let
from cupola.kernels.gpu.column_choice import columns_of
from cupola.kernels.gpu.columns import Columns
from cupola.kernels.gpu.emit import ceildiv, kernel, launch, size_var, split, write
from cupola.kernels.gpu.linear import FEW, Linear, multiply
from cupola.kernels.gpu.linear_rows import within
from cupola.kernels.gpu.position import Append, append
from cupola.quantize.layouts import OUT_BLOCK


@dataclass(frozen=True)
class Projection:
    """A product, which has a bias or nothing behind it, and what follows."""

    linear: Linear
    append: Append

    def way(self, rows: int) -> Columns | None:
        """That of a few rows in one kernel; None: there is none."""
        heads = self.append.pages.heads
        whole = self.append.rotary_dim == heads.dim and heads.dim % (2 * OUT_BLOCK) == 0
        return columns_of(self.linear.matrix, self.linear.gpu.matrix, self.linear.x, rows, 2) if whole else None

    def few(self, n: Expr, spans: dict[str, Span], way: Columns) -> None:
        """Launches a grid that takes as many rows at a time as `way` says."""
        heads = self.append.pages.heads
        pairs = heads.dim // (2 * OUT_BLOCK)  # blocks of the lower half of a head
        grid = (heads.queries + 2 * heads.keys) * pairs
        with launch(way.threads, grid, ceildiv(n, way.rows)) as block:
            first_row = let(block.y * way.rows)
            head, pair = split(block.x, pairs)
            lower = let(head * (2 * pairs) + pair)

            def finish(r: Expr, _: Expr, output: Expr, sums: tuple[Expr, ...]) -> None:
                row, d = let(first_row + r), let(pair * OUT_BLOCK + output)
                branch(row < n, lambda: self._store(spans, row, head, d, sums))

            blocks = [lower, let(lower + pairs)]
            way.run(block, spans["x"], spans["w"], lambda r: within(first_row + r, n), blocks, finish)

    def _store(self, spans: dict[str, Span], row: Expr, head: Expr, d: Expr, sums: tuple[Expr, ...]) -> None:
        """Finishes components d and d + D/2 of a head of the row."""
        pages, heads = self.append.pages, self.append.pages.heads
        half = heads.dim // 2
        places = (d, let(d + half))
        if "b" in spans:
            sums = tuple(let(s + spans["b"].at(head * heads.dim + at)) for s, at in zip(sums, places, strict=True))
        angle = let(row * (2 * half) + d)
        cos, sin = spans["table"].at(angle), spans["table"].at(angle + half)
        rotated = let(sums[0] * cos - sums[1] * sin), let(sums[1] * cos + sums[0] * sin)

        def query() -> None:
            for at, value in zip(places, rotated, strict=True):
                place = let((row * heads.queries + head) * heads.dim + at)
                write(spans["q"], place, let(value * f32(self.append.scale)))

        def stored() -> None:
            page, token = split(spans["slots"].at(row), pages.page_size)
            key = let(head - heads.queries)

            def write_key() -> None:
                for at, value in zip(places, rotated, strict=True):
                    write(spans["pages_"], pages.key(pages.head(page, key), at, token), value)

            def write_value() -> None:
                for at, value in zip(places, sums, strict=True):
                    write(spans["pages_"], pages.value(pages.head(page, let(key - heads.keys)), at, token), value)

            branch(key < heads.keys, write_key, write_value)

        branch(head < heads.queries, query, stored)


def project_append(spec: Projection) -> tirx.PrimFunc:
    """(x; w; b when biased; table; slots; pages) -> q [n, H * D]; `pages` is written in place.

    There is memory for itself behind q: the product's result, which only many rows leave, and `parts` (`Linear.args`).
    """
    n = size_var("n")
    args = {name: arg for name, arg in (spec.linear.args(n) | spec.append.args(n)).items() if name != "y"}
    own = [name for name in ("q", "qkv", "parts") if name in args]
    order = [*(name for name in args if name not in own), *own]

    def body(**spans: Span) -> None:
        def many() -> None:
            multiply(spec.linear, n, {**spans, "y": spans["qkv"]})
            append(spec.append, n, spans)

        def few(rows: int) -> None:
            way = spec.way(rows)
            assert way is not None
            spec.few(n, spans, way)

        branch(n <= 1, lambda: few(1), lambda: branch(n <= FEW, lambda: few(FEW), many))

    return kernel(f"project_{spec.linear.matrix.format.value}", {name: args[name] for name in order}, body)
