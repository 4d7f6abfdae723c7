"""Norms: of rows on their way into a product, of what is added to the stream, and of the heads of q and k."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.emit import Arg, Expr, Index, Span, branch, f32, let
from cupola.kernels.gpu.emit import (
    Block,
    block_sum,
    kernel,
    launch,
    madd,
    read,
    registers,
    shared,
    size_var,
    write,
    zero,
)
from cupola.kernels.heads import HeadShape

Load = Callable[[Expr], Expr]
Store = Callable[[Expr, Expr], None]  # (offset in the row, value)


@dataclass(frozen=True)
class NormSpec:
    """A norm of rows: RMSNorm (Zhang and Sennrich, 2019), or LayerNorm where it is `centered` (Ba et al., 2016)."""

    width: int
    eps: float
    centered: bool = False
    bias: bool = False

    @property
    def args(self) -> dict[str, Arg]:
        """Its vectors."""
        names = ("weight", "bias") if self.bias else ("weight",)
        return {name: Arg((self.width,), "float32") for name in names}

    def threads(self, most: int) -> int:
        """As many as there are values, up to a bound; a power of two."""
        count = 32
        while count < self.width and count * 2 <= min(most, 1024):
            count *= 2
        return count


def norm_row(
    block: Block,
    scratch: Span,
    norm: NormSpec,
    load: Load,
    weight: Span,
    bias: Span | None,
    store: Store,
    first: Index = 0,
) -> None:
    """Norms one row, whose weights begin at `first`; all threads of the block take part."""
    mean = _mean(block, scratch, norm.width, load) if norm.centered else None

    def centred(at: Expr) -> Expr:
        value = load(at)
        return value if mean is None else let(value - mean)

    def square(at: Expr, onto: Expr) -> Expr:
        value = centred(at)
        return madd(value, value, onto)

    variance = let(_sum(block, scratch, norm.width, square) * f32(1.0 / norm.width))
    inverse = let(f32(1.0) / tirx.sqrt(variance + f32(norm.eps)))

    def write_one(at: Expr) -> None:
        value = let(let(centred(at) * inverse) * weight.at(first + at))
        store(at, value if bias is None else let(value + bias.at(first + at)))

    block.each(norm.width, write_one)


def _mean(block: Block, scratch: Span, width: int, load: Load) -> Expr:
    return let(_sum(block, scratch, width, lambda at, onto: let(onto + load(at))) * f32(1.0 / width))


def _sum(block: Block, scratch: Span, width: int, add: Callable[[Expr, Expr], Expr]) -> Expr:
    mine = registers(1, fill=zero())
    block.each(width, lambda at: mine.put(0, add(at, mine.at(0))))
    return block_sum(block, scratch, mine.at(0))


def normed(norm: NormSpec, x: str, y: str, most_threads: int) -> tirx.PrimFunc:
    """(x[n, K], weight, bias if there is one) -> [n, K] of type `y`."""
    n, width, threads = size_var("n"), norm.width, norm.threads(most_threads)

    def body(y: Span, x: Span, weight: Span, bias: Span | None = None) -> None:
        with launch(threads, n) as block:
            base = let(block.x * width)

            def store(at: Expr, value: Expr) -> None:
                write(y, base + at, value)

            norm_row(block, shared(threads), norm, lambda at: read(x, base + at), weight, bias, store)

    return kernel("norm", {"x": Arg((n, width), x), **norm.args, "y": Arg((n, width), y)}, body)


def add_normed(norm: NormSpec, y: str, most_threads: int) -> tirx.PrimFunc:
    """x + norm(y): (x float32[n, K], y[n, K], weight, bias if there is one) -> float32[n, K]."""
    n, width, threads = size_var("n"), norm.width, norm.threads(most_threads)

    def body(x: Span, y: Span, weight: Span, z: Span, bias: Span | None = None) -> None:
        with launch(threads, n) as block:
            base = let(block.x * width)

            def store(at: Expr, value: Expr) -> None:
                z.put(base + at, let(x.at(base + at) + value))

            norm_row(block, shared(threads), norm, lambda at: read(y, base + at), weight, bias, store)

    rows = Arg((n, width), "float32")
    return kernel("add_normed", {"x": rows, "y": Arg((n, width), y), **norm.args, "z": rows}, body)


@dataclass(frozen=True)
class HeadNorm:
    """Norms of q and k in a row of the fused projection.

    Args:
        row_width: of the fused projection, padding included.
        by_head: each head is normed by itself (Dehghani et al., 2023); else all heads of a row are together.
        dtype: of the rows.
    """

    heads: HeadShape
    row_width: int
    by_head: bool
    eps: float
    centered: bool
    dtype: str

    def norm(self, heads: int) -> NormSpec:
        """That of some heads."""
        return NormSpec(self.heads.dim * (1 if self.by_head else heads), self.eps, self.centered)


def norm_heads(spec: HeadNorm, most_threads: int) -> tirx.PrimFunc:
    """(qkv[n, row_width], q_norm, k_norm float32[heads * D]) -> qkv with q and k normed."""
    n, heads = size_var("n"), spec.heads
    q_norm, k_norm = spec.norm(heads.queries), spec.norm(heads.keys)
    q_parts, k_parts = (heads.queries, heads.keys) if spec.by_head else (1, 1)
    threads = q_norm.threads(most_threads)
    keys, values = heads.queries * heads.dim, (heads.queries + heads.keys) * heads.dim

    def body(qkv: Span, q_norm_: Span, k_norm_: Span, y: Span) -> None:
        with launch(threads, n, q_parts + k_parts + 1) as block:
            scratch, row = shared(threads), let(block.x * spec.row_width)

            def part(norm: NormSpec, weight: Span, index: Expr, before: int) -> None:
                first = let(index * norm.width)
                start = let(row + before + first)

                def store(at: Expr, value: Expr) -> None:
                    write(y, start + at, value)

                norm_row(block, scratch, norm, lambda at: read(qkv, start + at), weight, None, store, first)

            def key_or_value() -> None:
                index = let(block.y - q_parts)
                branch(index < k_parts, lambda: part(k_norm, k_norm_, index, keys), copy)

            def copy() -> None:
                block.each(heads.keys * heads.dim, lambda at: y.put(row + values + at, qkv.at(row + values + at)))

            branch(block.y < q_parts, lambda: part(q_norm, q_norm_, block.y, 0), key_or_value)

    rows = Arg((n, spec.row_width), spec.dtype)
    widths = [count * heads.dim for count in (heads.queries, heads.keys)]
    args = {"qkv": rows, "q_norm_": Arg((widths[0],), "float32"), "k_norm_": Arg((widths[1],), "float32")}
    return kernel("norm_heads", args | {"y": rows}, body)
