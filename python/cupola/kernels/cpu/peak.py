"""A kernel that does nothing but integer dot products: what a processor could do if data were never waited for."""

from __future__ import annotations

from tvm import tirx

from cupola.kernels.cpu.emit import Arg, Span, bits, dtype_of, kernel, let, parallel, region, registers, serial
from cupola.kernels.cpu.isa import Isa

_ROWS, _COLUMNS = 2, 4  # eight sums hide the latency; they and their operands fit into sixteen registers
_LINES = 32  # all columns together are 4 or 8 kB, which stay in the first level of cache
_REPEATS = 1 << 15  # milliseconds, beside which a launch is nothing


def data_bytes(isa: Isa) -> int:
    """The size of `data`."""
    return (_ROWS + _LINES * _COLUMNS) * isa.bytes


def operations(isa: Isa) -> int:
    """Multiplications and additions that one thread does in a call."""
    return 2 * _ROWS * _COLUMNS * isa.bytes * _LINES * _REPEATS


def peak_kernel(threads: int, isa: Isa) -> tirx.PrimFunc:
    """(data uint8 [data_bytes], out uint8 [threads, rows * columns, isa.bytes]): every thread does all `operations`.

    The sums overflow, which is harmless here and faster than the widening that real products need now and then: the
    result is a limit, not a goal. The column operands come from memory, so that no product can be moved out of a loop.
    """

    size = isa.bytes

    def body(data: Span, out: Span) -> None:
        with region(), parallel(threads) as thread:
            rows = [data.load(row * size, size) for row in range(_ROWS)]
            first = isa.add_codes(rows[0], bits(rows[1], f"int8x{size}"), None)
            sums = registers(_ROWS * _COLUMNS, dtype_of(first), fill=first)
            with serial(_REPEATS), serial(_LINES) as line:
                for column in range(_COLUMNS):
                    at = (line * _COLUMNS + column + _ROWS) * size
                    values = bits(data.load(at, size), f"int8x{size}")
                    for row in range(_ROWS):
                        place = row * _COLUMNS + column
                        sums.put(place, isa.add_codes(rows[row], values, let(sums.get(place))))
            for place in range(_ROWS * _COLUMNS):
                out.store((thread * _ROWS * _COLUMNS + place) * size, bits(sums.get(place), f"uint8x{size}"))

    args = {"data": Arg((data_bytes(isa),), "uint8"), "out": Arg(output_shape(threads, isa), "uint8")}
    return kernel("peak", args, body)


def output_shape(threads: int, isa: Isa) -> tuple[int, int, int]:
    """The shape of `out`."""
    return threads, _ROWS * _COLUMNS, isa.bytes
