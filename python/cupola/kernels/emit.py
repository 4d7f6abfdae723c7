"""The words in which kernels are written, whatever the device: a thin layer over TVM's IR builder.

A kernel is a Python function that runs once, at compile time, and leaves TIR behind. Python loops unroll, loops of TIR
stay. `let` names a value (an SSA register); a kernel names whatever it uses twice. How work is dealt to threads, and
where values are kept, is the matter of the device: `cpu/emit.py` and `gpu/emit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir

Expr: TypeAlias = tvm.ir.Expr
Index: TypeAlias = Expr | int

LANES = 8  # float32 values in the vectors of processors, and of `Span.load` where nobody says otherwise
INT64 = "int64"


@dataclass(frozen=True)
class Arg:
    """One tensor argument of a kernel: its shape (ints or symbolic variables) and dtype."""

    shape: tuple[Index, ...]
    dtype: str


@dataclass(frozen=True)
class Span:
    """A flat view of a tensor or of a local buffer; offsets count elements, in integers of the type `index`."""

    buffer: tirx.Var
    index: str = INT64

    def load(self, offset: Index, lanes: int = LANES) -> Expr:
        """Loads `lanes` neighbours and names them."""
        return let(self.buffer[tirx.Ramp(as_index(offset, self.index), as_index(1, self.index), lanes)])

    def at(self, offset: Index) -> Expr:
        """Loads one element and names it."""
        return let(self.buffer[as_index(offset, self.index)])

    def store(self, offset: Index, value: Expr) -> None:
        """Stores a vector to neighbours (or one scalar)."""
        lanes, first = lanes_of(value), as_index(offset, self.index)
        at = first if lanes == 1 else tirx.Ramp(first, as_index(1, self.index), lanes)
        ir.buffer_store(self.buffer, value, [at])

    def put(self, offset: Index, value: Expr) -> None:
        """Stores one element (which may itself be of a vector type)."""
        ir.buffer_store(self.buffer, value, [as_index(offset, self.index)])

    def get(self, offset: Index) -> Expr:
        """An element as an expression that is evaluated where it is used."""
        return self.buffer[as_index(offset, self.index)]

    def viewed(self, dtype: str) -> Span:
        """The same memory as elements of another type, which offsets then count."""
        (size,) = self.buffer.shape
        elements = tirx.floordiv(size * tvm.DataType(str(self.buffer.dtype)).bits, tvm.DataType(dtype).bits)
        return Span(ir.decl_buffer((elements,), dtype, data=self.buffer.data), self.index)

    def prefetch(self, offset: Index) -> None:
        """Asks for the cache line of one element, to be read soon. Into the second level (locality 2): there can be
        more requests under way than the first level has buffers for, which is what limits reads from memory."""
        address = ir.address_of(self.buffer[as_index(offset, self.index)])
        ir.evaluate(tirx.call_intrin("void", "tirx.prefetch", address, i32(0), i32(2), i32(1)))


Body: TypeAlias = Callable[..., None]


def kernel(name: str, args: Mapping[str, Arg], body: Body, index: str = INT64) -> tirx.PrimFunc:
    """Emits one function: `body` is called with a `Span` for each argument, by name.

    Args:
        index: in which integers the kernel counts; the symbolic extents of `args` are of this type.
    """
    with IRBuilder() as builder, ir.prim_func(is_private=True):
        ir.func_name(name)
        handles = {key: ir.arg(key, ir.buffer(a.shape, a.dtype)) for key, a in args.items()}
        ir.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        spans = {key: flat(handles[key], a.shape, a.dtype, index) for key, a in args.items()}
        body(**spans)
    return builder.get()


def flat(buffer: tirx.Var, shape: Sequence[Index], dtype: str, index: str = INT64) -> Span:
    """A one-dimensional view of a tensor argument."""
    size: Index = 1
    for extent in shape:
        size = size * extent
    return Span(ir.decl_buffer((size,), dtype, data=buffer.data), index)


# Structure


def while_(condition: Callable[[], Expr]) -> AbstractContextManager[None]:
    """A loop that runs as long as `condition()` holds; it must read memory, with `Span.get`."""
    return ir.While(condition())


def branch(condition: Expr, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
    """If-then-else."""
    with ir.If(condition):
        with ir.Then():
            then()
        if otherwise is not None:
            with ir.Else():
                otherwise()


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


def as_index(value: Index, dtype: str) -> Expr:
    """An offset or extent as an expression of an integer type."""
    if isinstance(value, int):
        return tirx.IntImm(dtype, value)
    return value if str(dtype_of(value)) == dtype else tirx.Cast(dtype, value)
