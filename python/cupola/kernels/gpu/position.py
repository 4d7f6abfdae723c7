"""Rotary positions, and the append of new keys and values to their pages.

Cosines and sines are computed once a step for the positions at hand and shared by all layers, with polynomials of our
own: WGSL promises nothing for angles beyond pi, and little within. Halves are rotated as Hugging Face does: (x[i],
x[i + D/2]) is one pair (Su et al., 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Span, bits, branch, cast, f32, i32, let, select
from cupola.kernels.gpu.emit import ceildiv, kernel, launch, madd, read, size_var, split, u32, write
from cupola.kernels.gpu.pages import GpuPages

THREADS = 128


def rotary_table(half: int, magnitude: float) -> tirx.PrimFunc:
    """(positions int32[n], frequencies float32[D/2]) -> float32[n, 2, D/2]: cosines and sines, times `magnitude`."""
    n = size_var("n")

    def body(positions: Span, frequencies: Span, table: Span) -> None:
        with launch(THREADS, n) as block:

            def one(j: Expr) -> None:
                cos, sin = cos_sin(let(cast(positions.at(block.x), "float32") * frequencies.at(j)))
                at = let(block.x * (2 * half) + j)
                table.put(at, let(cos * f32(magnitude)))
                table.put(at + half, let(sin * f32(magnitude)))

            block.each(half, one)

    frequencies = Arg((half,), "float32")
    args = {"positions": Arg((n,), "int32"), "frequencies": frequencies, "table": Arg((n, 2, half), "float32")}
    return kernel("rotary_table", args, body)


def cos_sin(angle: Expr) -> tuple[Expr, Expr]:
    """Cosine and sine of an angle from 0 up to 2^20, to 3e-7.

    The angle becomes a fraction of a turn in 32 bits, in integers, where whole turns vanish by themselves: compilers of
    shaders rearrange sums of floats, and the usual reduction lives by their order.
    """
    whole = cast(angle, "uint32")  # towards zero
    rest = let(angle - cast(whole, "float32"))
    per_radian, finer = divmod(round(2.0**44 / (2 * math.pi)), 2**12)
    turned = let(whole * u32(per_radian) + ((whole * u32(finer)) >> u32(12)))
    turned = let(turned + cast(let(rest * f32(2.0**32 / (2 * math.pi))), "uint32"))
    turns = bits(let((turned + u32(1 << 29)) >> u32(30)), "int32")  # quarters, to the nearest
    beyond = bits(let(turned - (bits(turns, "uint32") << u32(30))), "int32")
    r = let(cast(beyond, "float32") * f32(2 * math.pi / 2.0**32))
    square = let(r * r)
    sin = f32(-1.9515295891e-4)
    for c in (8.3321608736e-3, -1.6666654611e-1):
        sin = madd(sin, square, f32(c))
    sin = let(r + r * square * sin)
    cos = f32(2.443315711809948e-5)
    for c in (-1.388731625493765e-3, 4.166664568298827e-2):
        cos = madd(cos, square, f32(c))
    cos = let(f32(1.0) - f32(0.5) * square + square * square * cos)
    odd = let((turns & i32(1)) == i32(1))
    of_sin, of_cos = select(odd, cos, sin), select(odd, sin, cos)
    negative_sin = let((turns & i32(2)) == i32(2))
    negative_cos = let(((turns + 1) & i32(2)) == i32(2))
    return select(negative_cos, let(-of_cos), of_cos), select(negative_sin, let(-of_sin), of_sin)


@dataclass(frozen=True)
class Append:
    """Where q, k and v lie in a row of the fused projection, and what happens to them on the way.

    Args:
        row_width: of the fused projection, padding included.
        rotary_dim: leading components of a head that are rotated.
        scale: the factor on queries.
        dtype: of the projection and of q.
    """

    pages: GpuPages
    row_width: int
    rotary_dim: int
    scale: float
    dtype: str

    def args(self, n: Expr) -> dict[str, Arg]:
        """The tensors of the kernel."""
        heads, pages = self.pages.heads, self.pages
        return {
            "qkv": Arg((n, self.row_width), self.dtype),
            **({"table": Arg((n, 2, self.rotary_dim // 2), "float32")} if self.rotary_dim else {}),
            "slots": Arg((n,), "int32"),
            "pages_": Arg((size_var("num_pages"), pages.elements), pages.dtype),
            "q": Arg((n, heads.queries * heads.dim), self.dtype),
        }


def rotate_append(spec: Append) -> tirx.PrimFunc:
    """Rotates q and k, scales q, and writes k and v to their slots.

    (qkv[n, row_width], table if anything rotates, slots int32[n], pages) -> q [n, H * D]; `pages` is written in place.
    """
    n = size_var("n")
    return kernel("rotate_append", spec.args(n), lambda **spans: append(spec, n, spans))


def append(spec: Append, n: Expr, spans: dict[str, Span]) -> None:
    """Launches the grid that does so; a thread has one component."""
    pages, heads = spec.pages, spec.pages.heads
    dim, half = heads.dim, spec.rotary_dim // 2
    components = (heads.queries + 2 * heads.keys) * dim
    qkv, pages_, table = spans["qkv"], spans["pages_"], spans.get("table")
    with launch(THREADS, n, ceildiv(components, THREADS)) as block:
        row = let(block.x * spec.row_width)
        at = let(block.y * THREADS + block.thread)
        head, d = split(at, dim)

        def rotated() -> Expr:
            return rotate(qkv, let(row + at), d, table, let(block.x * (2 * half)), half, dim)

        def query() -> None:
            write(spans["q"], let(block.x * (heads.queries * dim) + at), let(rotated() * f32(spec.scale)))

        def stored() -> None:
            page, token = split(spans["slots"].at(block.x), pages.page_size)
            key = let(head - heads.queries)

            def write_key() -> None:
                write(pages_, pages.key(pages.head(page, key), d, token), rotated())

            def write_value() -> None:
                start = pages.head(page, let(key - heads.keys))
                write(pages_, pages.value(start, d, token), read(qkv, row + at))

            branch(key < heads.keys, write_key, lambda: branch(at < components, write_value))

        branch(head < heads.queries, query, stored)


def rotate(x: Span, at: Expr, d: Expr, table: Span | None, row: Expr, half: int, dim: int) -> Expr:
    """The component d of a head, which is at `at` in x, rotated; behind the rotary part it passes unchanged.

    Args:
        row: where the row's cosines begin in the table.
    """
    if table is None:
        return read(x, at)
    lower = let(d < half)
    turns = let(d < 2 * half)
    pair = let(tirx.truncmod(tirx.Select(turns, d, i32(0)), i32(half)))
    cos, sin = table.at(row + pair), table.at(row + half + pair)
    other = let(tirx.Select(lower, i32(half), tirx.Select(turns, i32(-half), i32(0))))
    mine, theirs = read(x, at), read(x, at + other)
    value = let(mine * cos + theirs * select(lower, let(-sin), sin))
    return value if dim == 2 * half else select(turns, value, mine)
