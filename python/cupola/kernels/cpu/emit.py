"""The words in which CPU kernels are written: those of every device (`kernels/emit.py`), and what only processors have.

Vectors are plain TIR types such as float32x8, which LLVM maps to registers.

Traps of TVM 0.27 that this file absorbs:
- A small buffer of the default scope becomes an LLVM alloca, which is promoted to registers when its indices are
  constants; a buffer of more than 1 kB becomes a call for workspace. `registers` and `scratch` say which one is meant.
- Mutable scalars of TVMScript live in scope "local", which is workspace too, one runtime call for each: use `let`.
- All index arithmetic is int64, because a pool of KV pages outgrows int32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from tvm import tirx
from tvm.tirx.script.builder import ir

from cupola.kernels.emit import (
    LANES,
    Arg,
    Expr,
    Index,
    Span,
    as_index,
    bits,
    branch,
    cast,
    dtype_of,
    f32,
    flat,
    fma,
    i32,
    i64,
    kernel,
    lanes_of,
    let,
    select,
    shuffle,
    splat,
    while_,
)

__all__ = [
    "LANES",
    "ROUND",
    "TILED",
    "Arg",
    "Expr",
    "Index",
    "Span",
    "bits",
    "branch",
    "cast",
    "dtype_of",
    "exp",
    "f32",
    "flat",
    "fma",
    "for_each_row",
    "i32",
    "i64",
    "kernel",
    "lanes_of",
    "let",
    "max_lanes",
    "parallel",
    "reduce_tree",
    "region",
    "registers",
    "rounded16",
    "scratch",
    "select",
    "serial",
    "shuffle",
    "size_var",
    "splat",
    "sum_lanes",
    "tiles",
    "while_",
]

TILED = "cupola.tiled"  # marks a kernel that covers rows by tiles of many sizes; `compiler.pipeline` says what for


def size_var(name: str) -> tirx.Var:
    """A symbolic extent, such as the number of rows of a step."""
    return tirx.Var(name, "int64")


# Structure


@contextmanager
def parallel(extent: Index) -> Iterator[Expr]:
    """A loop whose iterations are divided among the threads, and a barrier behind it; only inside `region`."""
    with ir.attr(0, "pragma_parallel_barrier_when_finish", 1), ir.parallel(_i64(0), _i64(extent)) as index:
        yield index


@contextmanager
def region() -> Iterator[None]:
    """One launch of the thread pool: code between `parallel` loops runs on every thread."""
    with ir.attr(0, "pragma_parallel_launch_point", 1):
        yield


def serial(extent: Index, start: Index = 0) -> AbstractContextManager[Expr]:
    """An ordinary loop: `with serial(n) as i`."""
    return ir.serial(_i64(start), _i64(extent))


def for_each_row(rows: Expr, body: Callable[[Expr], None]) -> None:
    """A kernel of one parallel loop over rows."""
    with region(), parallel(rows) as row:
        body(row)


def tiles(rows: Index, sizes: Sequence[int], body: Callable[[Expr, int], None], first: Index = 0) -> None:
    """Covers `rows` rows from `first` by tiles of falling sizes (the last size is 1): `body(first_row, size)`."""
    start: Index = first
    left: Index = rows
    for size in sizes:
        count = let(tirx.floordiv(_i64(left), i64(size)))
        origin = start
        with serial(count) as tile:
            body(let(_i64(origin) + tile * size), size)
        start = let(_i64(start) + count * size)
        left = let(_i64(left) - count * size)


# Storage


def registers(count: int, dtype: str = "float32x8", fill: Expr | None = None) -> Span:
    """A few values that LLVM keeps in registers, as long as every index is a Python int."""
    span = Span(ir.alloc_buffer((count,), dtype))
    if fill is not None:
        for i in range(count):
            span.put(i, fill)
    return span


def scratch(count: int, dtype: str = "float32") -> Span:
    """A block of memory of this thread's own, for the time of the enclosing loop body."""
    return Span(ir.alloc_buffer((count,), dtype))


# Values


def _i64(value: Index) -> Expr:
    return as_index(value, "int64")


def reduce_tree(value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """All lanes combined pairwise, halving; the order is fixed, so that the result is too."""
    lanes = lanes_of(value)
    while lanes > 1:
        half = lanes // 2
        low, high = shuffle(value, range(half)), shuffle(value, range(half, lanes))
        value = let(combine(low, high))
        lanes = half
    return value


def sum_lanes(value: Expr) -> Expr:
    return reduce_tree(value, lambda a, b: a + b)


def max_lanes(value: Expr) -> Expr:
    return reduce_tree(value, lambda a, b: tirx.max(a, b))


# Added to a float of magnitude below 2^22, it leaves the nearest integer in the last bits.
ROUND = 12582912.0  # 1.5 * 2^23


def rounded16(value: Expr, factor: Expr) -> Expr:
    """value * factor, rounded to the nearest int16, for float32 vectors; magnitudes below 2^15."""
    lanes = lanes_of(value)
    shifted = fma(value, factor, splat(f32(ROUND), lanes))
    return cast(bits(shifted, f"int32x{lanes}"), f"int16x{lanes}")


def exp(x: Expr) -> Expr:
    """e^x for float32 vectors, to 2 ulp; exactly 0 below -87 and exactly 1 at 0 (attention relies on both)."""
    lanes = lanes_of(x)

    def all_lanes(value: float) -> Expr:
        return splat(f32(value), lanes)

    limited = let(tirx.max(tirx.min(x, all_lanes(88.0)), all_lanes(-87.0)))
    shifted = fma(limited, all_lanes(1.4426950408889634), all_lanes(ROUND))  # the exponent, in its last bits
    n = let(shifted - all_lanes(ROUND))
    f = fma(limited, all_lanes(1.4426950408889634), let(-n))
    p = all_lanes(1.3264727e-3)
    for c in (9.6715130e-3, 5.5507336e-2, 2.4022242e-1, 6.9314700e-1, 1.0):
        p = fma(p, f, all_lanes(c))
    exponent = let(bits(shifted, f"int32x{lanes}") << splat(i32(23), lanes))
    power = bits(let(bits(p, f"int32x{lanes}") + exponent), f"float32x{lanes}")
    return select(x < all_lanes(-87.0), all_lanes(0.0), power)
