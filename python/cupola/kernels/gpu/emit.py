"""The words in which GPU kernels are written: those of every device (`kernels/emit.py`), and what only GPUs have.

A kernel launches one grid or several; what stands between launches runs on the host, where it can compare extents. A
block of threads has one dimension, a grid has two (WebGPU's third one carries the overflow of the first).

What this file absorbs:
- All index arithmetic is int32, also that of symbolic extents: WGSL has nothing wider, and others are faster with it.
- A value that steers a loop with a barrier inside is computed by every thread alike from read-only arguments, block
  indices and extents. Shared memory would do as well on most devices, but WGSL calls it non-uniform.
- Local buffers are registers as long as every index is a Python int.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir

from cupola.kernels import emit
from cupola.kernels.emit import (
    Arg,
    Body,
    Expr,
    Index,
    Span,
    as_index,
    bits,
    branch,
    cast,
    dtype_of,
    f32,
    i32,
    let,
    while_,
)
from cupola.kernels.gpu.hoist import hoisted

INT32 = "int32"


@dataclass(frozen=True)
class Block:
    """The block of threads that runs the code at hand.

    Args:
        x, y: its place in the grid.
        thread: the thread's place in the block.
        threads: how many there are.
    """

    x: Expr
    y: Expr
    thread: Expr
    threads: int

    def each(self, count: int, body: Callable[[Expr], None]) -> None:
        """Calls `body` for 0 to count - 1, neighbours at once on neighbouring threads."""
        rounds, rest = divmod(count, self.threads)
        if rounds == 1:
            body(self.thread)
        elif rounds:
            with serial(rounds) as i:
                body(let(i * self.threads + self.thread))
        if rest:
            branch(self.thread < rest, lambda: body(let(self.thread + rounds * self.threads)))


def kernel(name: str, args: Mapping[str, Arg], body: Body) -> tirx.PrimFunc:
    """As `emit.kernel`, for the host that launches grids."""
    return hoisted(emit.kernel(name, args, body, INT32))


def size_var(name: str) -> tirx.Var:
    """A symbolic extent, such as the number of rows of a step."""
    return tirx.Var(name, INT32)


# Structure


@contextmanager
def launch(threads: int, x: Index, y: Index = 1) -> Iterator[Block]:
    """One grid of x times y blocks."""
    with (
        ir.launch_thread("blockIdx.x", as_index(x, INT32)) as block_x,
        ir.launch_thread("blockIdx.y", as_index(y, INT32)) as block_y,
        ir.launch_thread("threadIdx.x", threads) as thread,
    ):
        yield Block(block_x, block_y, thread, threads)


def serial(extent: Index, start: Index = 0) -> AbstractContextManager[Expr]:
    """An ordinary loop: `with serial(n) as i`."""
    return ir.serial(as_index(start, INT32), as_index(extent, INT32))


def sync() -> None:
    """A barrier of the block, behind which all see what each wrote to shared memory."""
    ir.evaluate(tirx.call_intrin("void", "tirx.tvm_storage_sync", "shared"))


def ceildiv(value: Index, by: int) -> Index:
    """value / by, rounded up; value is not negative."""
    if isinstance(value, int):
        return -(-value // by)
    return let(tirx.truncdiv(value + (by - 1), as_index(by, INT32)))


def split(value: Expr, by: int) -> tuple[Expr, Expr]:
    """(value / by, value % by) of a value that is not negative."""
    if by & (by - 1) == 0:
        return let(value >> as_index(by.bit_length() - 1, INT32)), let(value & as_index(by - 1, INT32))
    divisor = as_index(by, INT32)
    return let(tirx.truncdiv(value, divisor)), let(tirx.truncmod(value, divisor))


# Pieces of sequences


def slots(total: Index, sequences: Index, size: int) -> Index:
    """Upper bound of the pieces of `size` that sequences fall into, which have `total` together; exact for one.

    Asked for what lies before sequence s and for s, it is the first slot of s: no two sequences share one.
    """
    return tirx.truncdiv(total + sequences * (size - 1), i32(size))


def last_beginning(slot: Expr, sequences: Expr, first_slot: Callable[[Expr], Expr]) -> Expr:
    """The last sequence whose slots begin at or before `slot`, by bisection."""
    bounds = registers(2, "int32")
    bounds.put(0, i32(0))
    bounds.put(1, sequences)
    with while_(lambda: bounds.get(0) + 1 < bounds.get(1)):
        middle = let((bounds.at(0) + bounds.at(1)) >> i32(1))
        branch(first_slot(middle) <= slot, lambda: bounds.put(0, middle), lambda: bounds.put(1, middle))
    return bounds.at(0)


# Storage


def shared(count: int, dtype: str = "float32") -> Span:
    """Memory of the block, wherever in a grid it is asked for; never in a loop."""
    return Span(ir.alloc_buffer((count,), dtype, scope="shared"), INT32)


def registers(count: int, dtype: str = "float32", fill: Expr | None = None) -> Span:
    """A few values of the thread's own."""
    span = Span(ir.alloc_buffer((count,), dtype, scope="local"), INT32)
    if fill is not None:
        for i in range(count):
            span.put(i, fill)
    return span


def read(span: Span, at: Index) -> Expr:
    """A float, of whatever type the span has, as float32; uint16 holds bfloat16."""
    value = span.at(at)
    if dtype_of(value) == "uint16":
        return bits(let(cast(value, "uint32") << u32(16)), "float32")
    return value if dtype_of(value) == "float32" else cast(value, "float32")


def write(span: Span, at: Index, value: Expr) -> None:
    """A float32 as an element of whatever type the span has, rounded to the nearest."""
    dtype = str(span.buffer.dtype)
    if dtype == "uint16":
        code = bits(value, "uint32")
        rounded = let(code + (u32(0x7FFF) + ((code >> u32(16)) & u32(1))))
        span.put(at, cast(let(rounded >> u32(16)), dtype))
    else:
        span.put(at, value if dtype == "float32" else cast(value, dtype))


# Values


def u32(value: int) -> Expr:
    return tirx.IntImm("uint32", value)


def madd(a: Expr, b: Expr, c: Expr) -> Expr:
    """a * b + c, contracted or not as the device likes it."""
    return let(a * b + c)


MASKED = -1e30  # the score of what is not seen: e^(MASKED - any score) is 0, and arithmetic with it stays finite


def block_sum(block: Block, scratch: Span, value: Expr) -> Expr:
    """The sum of a value over the threads of a block, for all of them.

    Args:
        scratch: [threads] of shared memory, of the value's type, free again behind the call.
    """
    return _reduced(block, scratch, value, lambda a, b: a + b)


def block_max(block: Block, scratch: Span, value: Expr) -> Expr:
    """The largest of the threads' values, likewise."""
    return _reduced(block, scratch, value, tirx.max)


def _reduced(block: Block, scratch: Span, value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    scratch.put(block.thread, value)
    sync()
    count = block.threads
    while count > 1:
        half = (count + 1) // 2

        def fold(half: int = half) -> None:
            scratch.put(block.thread, let(combine(scratch.at(block.thread), scratch.at(block.thread + half))))

        branch(block.thread < count - half, fold)
        sync()
        count = half
    total = scratch.at(0)
    sync()
    return total


def zero() -> Expr:
    return f32(0.0)
