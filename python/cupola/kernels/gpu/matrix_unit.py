"""What a warp of 32 threads does together on NVIDIA's GPUs from sm_80 on, and which words each thread holds.

A warp multiplies A [16, 16] by B [16, 8] onto C [16, 8], of 16-bit floats, with sums in float32. Of lane 4 g + t (PTX
ISA, "Matrix fragments for mma.m16n8k16"):

    A   four words of two neighbouring inputs: rows g and g + 8 at inputs 2 t, then both at inputs 2 t + 8
    B   two words: output g at inputs 2 t, and at 2 t + 8
    C   four sums: row g at outputs 2 t and 2 t + 1, then row g + 8

`Instructions` is the whole list of what kernels use. Each is one instruction of PTX, so that a test can take it apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tvm.backend.cuda.ptx.engine import PTXNamespace
from tvm.tirx.script.builder import ir

from cupola.kernels.emit import Expr, Span
from cupola.kernels.gpu.emit import INT32, Block, registers

ROWS, OUTPUTS, INPUTS = 16, 8, 16
A_WORDS, B_WORDS, SUMS = 4, 2, 4
WARP = 32
CHUNK = 4  # words that are copied at once


class Instructions(Protocol):
    """What a warp does in one instruction. A word is a uint32 that holds two 16-bit floats, the first one low."""

    def multiply(self, a: Span, a_at: int, b: Span, b_at: int, c: Span, c_at: int) -> None:
        """Adds the product of one tile of A and one of B to one of C; each lies in registers from its place on."""

    def load(self, words: Span, at: int, memory: Span, line: Expr, *, transposed: bool = False) -> None:
        """Four 8 x 8 matrices of 16-bit floats from shared memory, each to one word of every lane.

        Args:
            words, at: registers.
            line: the word where row (lane % 8) of matrix (lane / 8) begins; a multiple of 4.
            transposed: lane 4 g + t gets column g of rows 2 t and 2 t + 1, not row g of columns 2 t and 2 t + 1.
        """

    def copy(self, memory: Span, to: Expr, source: Span, at: Expr) -> None:
        """Four words from global to shared memory, whenever they come; both places are multiples of 4."""

    def commit(self) -> None:
        """Ends a group of copies, which may be empty."""

    def wait(self, pending: int) -> None:
        """Until this thread's groups have come, all but the last `pending`."""

    def fetch(self, words: Span, at: int, source: Span, place: Expr, count: int, *, early: bool) -> None:
        """One, two or four words of global memory that nobody writes, to registers.

        Args:
            place: a multiple of `count`.
            early: compilers may not move it behind a later one, as they do to save registers.
        """

    def permute(self, a: Expr, b: Expr, selector: Expr) -> Expr:
        """Four of the eight bytes of b:a, chosen by the nibbles of the selector, the lowest first."""

    def overlay(self, word: Expr, mask: Expr, bits: Expr) -> Expr:
        """(word & mask) | bits, in one instruction, which a compiler makes two of where both are constants."""

    def fma(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """a * b + c of both halves of words of float16, rounded once."""

    def pair(self, low: Expr, high: Expr) -> Expr:
        """Two float32, each rounded to the nearest number of the unit's type, as one word."""


@dataclass(frozen=True)
class MatrixUnit:
    """The matrix units of a device.

    Args:
        dtype: of what they multiply: float16 or bfloat16.
        begin: called once in a block of threads, for what its warps can do.
        scope: the kind of memory that a block shares; of "shared.dyn" there may be more than 48 KiB.
    """

    dtype: str
    begin: Callable[[Block], Instructions]
    scope: str = "shared.dyn"

    def shared(self, words: int) -> Span:
        """Memory of the block, the only one of a grid."""
        return Span(ir.alloc_buffer((words,), "uint32", scope=self.scope), INT32)


class _Ptx:
    """The instructions themselves."""

    def __init__(self, short: str) -> None:
        ptx = PTXNamespace()
        self._multiply = ptx[f"mma.sync.aligned.m16n8k16.row.col.f32.{short}.{short}.f32"]
        self._load = {
            transposed: ptx[f"ldmatrix.sync.aligned.m8n8.x4{'.trans' * transposed}.shared.b16"]
            for transposed in (False, True)
        }
        self._copy = ptx["cp.async.cg.shared.global"]
        self._fetch = {
            (count, early): ptx[f"{'ld.relaxed.gpu.global' if early else 'ld.global.nc'}.L1::no_allocate{vector}.b32"]
            for count, vector in ((1, ""), (2, ".v2"), (4, ".v4"))
            for early in (False, True)
        }
        self._commit, self._wait = ptx["cp.async.commit_group"], ptx["cp.async.wait_group"]
        self._permute, self._overlay = ptx["prmt.b32"], ptx["lop3.b32"]
        self._fma, self._pair = ptx["fma.rn.f16x2"], ptx[f"cvt.rn.{short}x2.f32"]

    def multiply(self, a: Span, a_at: int, b: Span, b_at: int, c: Span, c_at: int) -> None:
        sums = [c.buffer[c_at + i] for i in range(SUMS)]
        factors = [a.buffer[a_at + i] for i in range(A_WORDS)] + [b.buffer[b_at + i] for i in range(B_WORDS)]
        ir.evaluate(self._multiply(*sums, *factors, *sums))

    def load(self, words: Span, at: int, memory: Span, line: Expr, *, transposed: bool = False) -> None:
        found = [words.buffer[at + i] for i in range(4)]
        ir.evaluate(self._load[transposed](*found, ir.address_of(memory.buffer[line])))

    def copy(self, memory: Span, to: Expr, source: Span, at: Expr) -> None:
        ir.evaluate(self._copy(ir.address_of(memory.buffer[to]), ir.address_of(source.buffer[at]), 4 * CHUNK))

    def commit(self) -> None:
        ir.evaluate(self._commit())

    def wait(self, pending: int) -> None:
        ir.evaluate(self._wait(pending))

    def fetch(self, words: Span, at: int, source: Span, place: Expr, count: int, *, early: bool) -> None:
        found = [words.buffer[at + i] for i in range(count)]
        ir.evaluate(self._fetch[count, early](*found, ir.address_of(source.buffer[place])))

    def permute(self, a: Expr, b: Expr, selector: Expr) -> Expr:
        return _result(self._permute, a, b, selector)

    def overlay(self, word: Expr, mask: Expr, bits: Expr) -> Expr:
        return _result(self._overlay, word, mask, bits, 0xEA)

    def fma(self, a: Expr, b: Expr, c: Expr) -> Expr:
        return _result(self._fma, a, b, c)

    def pair(self, low: Expr, high: Expr) -> Expr:
        return _result(self._pair, high, low)


def _result(instruction: Callable[..., Expr], *operands: Expr | int) -> Expr:
    """What an instruction leaves in a word."""
    word = registers(1, "uint32")
    ir.evaluate(instruction(word.buffer[0], *operands))
    return word.at(0)


def of_cuda(dtype: str) -> MatrixUnit:
    """The matrix units of CUDA's devices; from sm_80 on."""
    instructions = _Ptx({"float16": "f16", "bfloat16": "bf16"}[dtype])
    return MatrixUnit(dtype, lambda _block: instructions)
