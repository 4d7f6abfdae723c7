"""Tiles of matrices in one instruction: mma.sync.m16n8k16 of NVIDIA's GPUs, and which fragments a thread holds.

A warp of 32 threads multiplies A [16, 16] by B [16, 8] onto C [16, 8], of 16-bit floats, with sums in float32. Of lane
4 g + t (PTX ISA, "Matrix fragments for mma.m16n8k16"):

    A   four words of two neighbouring inputs: rows g and g + 8 at inputs 2 t, then both at inputs 2 t + 8
    B   two words: output g at inputs 2 t, and at 2 t + 8
    C   four sums: row g at outputs 2 t and 2 t + 1, then row g + 8
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.backend.cuda.op import ptx_legacy_mma
from tvm.tirx.script.builder import ir

from cupola.kernels.emit import Expr, Span, bits, cast, let
from cupola.kernels.gpu.emit import Block, u32

ROWS, OUTPUTS, INPUTS = 16, 8, 16
A_WORDS, B_WORDS, SUMS = 4, 2, 4
WARP = 32

# (words of A, where they begin, words of B, where, sums, where): multiplies one tile of the warp.
Multiply = Callable[[Span, int, Span, int, Span, int], None]
Begin = Callable[[Block], Multiply]


@dataclass(frozen=True)
class MatrixUnit:
    """How 16-bit floats go into words, two at a time, and who multiplies.

    Args:
        dtype: float16 or bfloat16.
        begin: called once in a block of threads, for what multiplies there.
    """

    dtype: str
    begin: Begin

    def pair(self, low: Expr, high: Expr) -> Expr:
        """Two float32, each rounded to the nearest, as one word."""
        return let(self._code(low) | let(self._code(high) << u32(16)))

    def _code(self, value: Expr) -> Expr:
        if self.dtype == "float16":
            return cast(bits(cast(value, "float16"), "uint16"), "uint32")
        code = bits(value, "uint32")
        return let((code + (u32(0x7FFF) + ((code >> u32(16)) & u32(1)))) >> u32(16))


def of_cuda(dtype: str) -> MatrixUnit:
    """The instruction itself; from sm_80 on."""
    short = {"float16": "fp16", "bfloat16": "bf16"}[dtype]

    def multiply(a: Span, a_at: int, b: Span, b_at: int, c: Span, c_at: int) -> None:
        ends = [(a.buffer.data, a_at), (b.buffer.data, b_at), (c.buffer.data, c_at)]
        flat = [value for pointer, at in ends for value in (pointer, tirx.IntImm("int32", at))]
        ir.evaluate(ptx_legacy_mma("m16n8k16", "row", "col", short, short, "fp32", *flat, False))

    return MatrixUnit(dtype, lambda _block: multiply)
