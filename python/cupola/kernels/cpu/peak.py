"""A kernel that does nothing but integer dot products: what a processor could do if data were never waited for."""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.cpu.emit import Arg, Span, bits, dtype_of, kernel, let, parallel, region, registers, serial
from cupola.kernels.cpu.isa import Isa

_BYTES = 32  # of one operand
_ROWS, _COLUMNS = 2, 4  # eight sums hide the latency; they and their operands fit into sixteen registers
_LINES = 32  # all columns together are 4 kB, which stay in the first level of cache
_REPEATS = 512

DATA_BYTES = (_ROWS + _LINES * _COLUMNS) * _BYTES
OPERATIONS = 2 * _ROWS * _COLUMNS * _BYTES * _LINES * _REPEATS
"""Multiplications and additions that one thread does in a call."""


def peak_kernel(threads: int, isa: Isa) -> tirx.PrimFunc:
    """(data uint8 [DATA_BYTES], out uint8 [threads, rows * columns, 32]): every thread does the same OPERATIONS.

    The sums overflow, which is harmless here and faster than the widening that real products need now and then: the
    result is a limit, not a goal. The column operands come from memory, so that no product can be moved out of a loop.
    """

    def body(data: Span, out: Span) -> None:
        with region(), parallel(threads) as thread:
            rows = [data.load(row * _BYTES, _BYTES) for row in range(_ROWS)]
            first = isa.mul_pairs(rows[0], bits(rows[1], "int8x32"))
            sums = registers(_ROWS * _COLUMNS, dtype_of(first), fill=first)
            with serial(_REPEATS), serial(_LINES) as line:
                for column in range(_COLUMNS):
                    at = (line * _COLUMNS + column + _ROWS) * _BYTES
                    values = bits(data.load(at, _BYTES), "int8x32")
                    for row in range(_ROWS):
                        place = row * _COLUMNS + column
                        sums.put(place, let(sums.get(place) + isa.mul_pairs(rows[row], values)))
            for place in range(_ROWS * _COLUMNS):
                out.store((thread * _ROWS * _COLUMNS + place) * _BYTES, bits(sums.get(place), "uint8x32"))

    return kernel("peak", {"data": Arg((DATA_BYTES,), "uint8"), "out": Arg(output_shape(threads), "uint8")}, body)


def output_shape(threads: int) -> tuple[int, int, int]:
    """The shape of `out`."""
    return threads, _ROWS * _COLUMNS, _BYTES
