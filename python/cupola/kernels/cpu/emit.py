"""The words in which CPU kernels are written: a thin layer over TVM's IR builder.

A kernel is a Python function that runs once, at compile time, and leaves TIR behind. Python loops unroll, `serial`
loops stay. `let` names a value (an SSA register); a kernel names whatever it uses twice. Vectors are plain TIR types
such as float32x8, which LLVM maps to registers.

Traps of TVM 0.27 that this file absorbs:
- A small buffer of the default scope becomes an LLVM alloca, which is promoted to registers when its indices are
  constants; a buffer of more than 1 kB becomes a call for workspace. `registers` and `scratch` say which one is meant.
- Mutable scalars of TVMScript live in scope "local", which is workspace too, one runtime call for each: use `let`.
- All index arithmetic is int64, because a pool of KV pages outgrows int32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir

Expr: TypeAlias = tvm.ir.Expr
Index: TypeAlias = Expr | int

LANES = 8  # float32 values in the vectors that all kernels here compute with


@dataclass(frozen=True)
class Arg:
    """One tensor argument of a kernel: its shape (ints or symbolic variables) and dtype."""

    shape: tuple[Index, ...]
    dtype: str


@dataclass(frozen=True)
class Span:
    """A flat view of a tensor or of a local buffer; offsets count elements."""

    buffer: tirx.Var

    def load(self, offset: Index, lanes: int = LANES) -> Expr:
        """Loads `lanes` neighbours and names them."""
        return let(self.buffer[tirx.Ramp(_i64(offset), _i64(1), lanes)])

    def at(self, offset: Index) -> Expr:
        """Loads one element and names it."""
        return let(self.buffer[_i64(offset)])

    def store(self, offset: Index, value: Expr) -> None:
        """Stores a vector to neighbours (or one scalar)."""
        lanes = lanes_of(value)
        at = _i64(offset) if lanes == 1 else tirx.Ramp(_i64(offset), _i64(1), lanes)
        ir.buffer_store(self.buffer, value, [at])

    def put(self, offset: Index, value: Expr) -> None:
        """Stores one element (which may itself be of a vector type)."""
        ir.buffer_store(self.buffer, value, [_i64(offset)])

    def get(self, offset: Index) -> Expr:
        """An element as an expression that is evaluated where it is used."""
        return self.buffer[_i64(offset)]

    def viewed(self, dtype: str) -> Span:
        """The same memory as elements of another type, which offsets then count."""
        (size,) = self.buffer.shape
        elements = tirx.floordiv(size * tvm.DataType(str(self.buffer.dtype)).bits, tvm.DataType(dtype).bits)
        return Span(ir.decl_buffer((elements,), dtype, data=self.buffer.data))

    def prefetch(self, offset: Index) -> None:
        """Asks for the cache line of one element, to be read soon. Into the second level (locality 2): there can be
        more requests under way than the first level has buffers for, which is what limits reads from memory."""
        address = ir.address_of(self.buffer[_i64(offset)])
        ir.evaluate(tirx.call_intrin("void", "tirx.prefetch", address, i32(0), i32(2), i32(1)))


Body: TypeAlias = Callable[..., None]


def kernel(name: str, args: Mapping[str, Arg], body: Body) -> tirx.PrimFunc:
    """Emits one function: `body` is called with a `Span` for each argument, by name."""
    with IRBuilder() as builder, ir.prim_func(is_private=True):
        ir.func_name(name)
        handles = {key: ir.arg(key, ir.buffer(a.shape, a.dtype)) for key, a in args.items()}
        ir.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        spans = {key: flat(handles[key], a.shape, a.dtype) for key, a in args.items()}
        body(**spans)
    return builder.get()


def flat(buffer: tirx.Var, shape: Sequence[Index], dtype: str) -> Span:
    """A one-dimensional view of a tensor argument."""
    size: Index = 1
    for extent in shape:
        size = size * extent
    return Span(ir.decl_buffer((size,), dtype, data=buffer.data))


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


def while_(condition: Callable[[], Expr]) -> AbstractContextManager[None]:
    """A loop that runs as long as `condition()` holds; it must read memory, with `Span.get`."""
    return ir.While(condition())


def for_each_row(rows: Expr, body: Callable[[Expr], None]) -> None:
    """A kernel of one parallel loop over rows."""
    with region(), parallel(rows) as row:
        body(row)


def branch(condition: Expr, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
    """If-then-else."""
    with ir.If(condition):
        with ir.Then():
            then()
        if otherwise is not None:
            with ir.Else():
                otherwise()


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


def let(value: Expr) -> Expr:
    """Names a value, so that it is computed once."""
    return ir.Bind(value)


def i32(value: int) -> Expr:
    return tirx.IntImm("int32", value)


def i64(value: int) -> Expr:
    return tirx.IntImm("int64", value)


def f32(value: float) -> Expr:
    return tirx.FloatImm("float32", value)


def _i64(value: Index) -> Expr:
    if isinstance(value, int):
        return i64(value)
    return value if str(dtype_of(value)) == "int64" else tirx.Cast("int64", value)


def dtype_of(value: Expr) -> str:
    """The TIR dtype of an expression, such as float32x8."""
    return str(value.ty.dtype)


def lanes_of(value: Expr) -> int:
    """The number of vector lanes of an expression."""
    _, _, lanes = dtype_of(value).partition("x")
    return int(lanes or 1)


def splat(value: Expr, lanes: int = LANES) -> Expr:
    """A vector whose lanes all hold `value`; of one lane, the value itself."""
    return let(tirx.Broadcast(value, lanes) if lanes > 1 else value)


def cast(value: Expr, dtype: str) -> Expr:
    return let(tirx.Cast(dtype, value))


def bits(value: Expr, dtype: str) -> Expr:
    """The same bits as another type of the same size."""
    return let(tirx.reinterpret(dtype, value))


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """a * b + c with one rounding. Always written out, so that results never depend on what LLVM contracts."""
    return let(tirx.call_intrin(dtype_of(c), "tirx.fma", a, b, c))


def select(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    return let(tirx.Select(condition, then, otherwise))


def shuffle(value: Expr, indices: Sequence[int]) -> Expr:
    """The lanes of `value` in another order; a single index gives a scalar."""
    return let(tirx.Shuffle([value], [i32(i) for i in indices]))


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
