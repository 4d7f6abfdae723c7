"""Rows of tables: token embeddings out of packed weights, and the rows of a step of which logits are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Span,
    bits,
    cast,
    f32,
    fma,
    for_each_row,
    kernel,
    lanes_of,
    let,
    serial,
    size_var,
    splat,
)
from cupola.kernels.cpu.isa import PLAIN
from cupola.quantize.formats import GROUP, Q3_PARTS, Q4S_ZERO, Format
from cupola.quantize.layouts import OUT_BLOCK, SCALE_BYTES, block_bytes, codes_offset, packed_dtype, packed_shape
from cupola.quantize.mxfp4 import ZERO_HALVES
from cupola.quantize.wide import ROW_BYTES

_Write = Callable[[Expr, Expr], None]  # (offset in the row, one value or neighbours)
_ReadRow = Callable[[Span, Expr, int, _Write], None]  # (table, row, width, where the values go)


def embed(fmt: Format, vocabulary: int, width: int, scale: float = 1.0) -> tirx.PrimFunc:
    """(ids int32[n], packed table of [vocabulary, width]) -> scale * table[ids], float32[n, width]."""
    n = size_var("n")
    readers: Mapping[Format, _ReadRow] = {
        Format.F32: _read_floats,
        Format.F16: _read_floats,
        Format.BF16: partial(_read_floats, bfloat=True),
        Format.Q16: _read_q16,
        Format.Q8: _read_q8,
        Format.Q4: partial(_read_q4, fmt=Format.Q4),
        Format.Q4S: partial(_read_q4, fmt=Format.Q4S),
        Format.Q3: _read_q3,
        Format.MXFP4: _read_mxfp4,
    }

    def body(ids: Span, w: Span, y: Span) -> None:
        def row(i: Expr) -> None:
            token = cast(ids.at(i), "int64")

            def write(at: Expr, value: Expr) -> None:
                scaled = value if scale == 1 else let(value * splat(f32(scale), lanes_of(value)))
                y.store(i * width + at, scaled)

            readers[fmt](w, token, width, write)

        for_each_row(n, row)

    table = Arg(packed_shape(fmt, (vocabulary, width)), packed_dtype(fmt).name)
    args = {"ids": Arg((n,), "int32"), "w": table, "y": Arg((n, width), "float32")}
    return kernel(f"embed_{fmt.value}", args, body)


def take(width: int) -> tirx.PrimFunc:
    """(x float32[n, width], rows int32[m]) -> x[rows], float32[m, width]."""
    n, m = size_var("n"), size_var("m")

    def body(x: Span, rows: Span, y: Span) -> None:
        def row(i: Expr) -> None:
            source = let(cast(rows.at(i), "int64") * width)
            with serial(width // LANES) as j:
                y.store(i * width + j * LANES, x.load(source + j * LANES))

        for_each_row(m, row)

    args = {"x": Arg((n, width), "float32"), "rows": Arg((m,), "int32"), "y": Arg((m, width), "float32")}
    return kernel("take_rows", args, body)


def add_rows(count: int, width: int) -> tirx.PrimFunc:
    """(x float32[n, width], table float32[count, width], rows int32[n]) -> x + table[rows], float32[n, width]."""
    n = size_var("n")

    def body(x: Span, table: Span, rows: Span, y: Span) -> None:
        def row(i: Expr) -> None:
            source = let(cast(rows.at(i), "int64") * width)
            with serial(width // LANES) as j:
                y.store(i * width + j * LANES, let(x.load(i * width + j * LANES) + table.load(source + j * LANES)))

        for_each_row(n, row)

    args = {"x": Arg((n, width), "float32"), "table": Arg((count, width), "float32"), "rows": Arg((n,), "int32")}
    return kernel("add_rows", args | {"y": Arg((n, width), "float32")}, body)


def _block(row: Expr) -> tuple[Expr, Expr]:
    """(column block, output within it) of a matrix row."""
    return let(tirx.floordiv(row, OUT_BLOCK)), let(tirx.floormod(row, OUT_BLOCK))


def _read_floats(w: Span, row: Expr, width: int, write: _Write, bfloat: bool = False) -> None:
    base = let(tirx.floordiv(row, OUT_BLOCK) * (width * OUT_BLOCK) + tirx.floormod(row, OUT_BLOCK))
    with serial(width) as k:
        value = w.at(base + k * OUT_BLOCK)
        if bfloat:  # the upper half of a float32
            write(k, bits(let(cast(value, "uint32") << tirx.IntImm("uint32", 16)), "float32"))
        else:
            write(k, cast(value, "float32"))


def _read_q16(w: Span, row: Expr, width: int, write: _Write) -> None:
    block, out = _block(row)
    base = let(block * ((width // 2 + 1) * ROW_BYTES))
    scale = splat(w.viewed("float32").at(base // 4 + out), 2)
    codes = w.viewed("int16")
    with serial(width // 2) as pair:
        values = codes.load((base + (pair + 1) * ROW_BYTES) // 2 + out * 2, 2)
        write(let(pair * 2), let(cast(values, "float32x2") * scale))


def _read_q8(w: Span, row: Expr, width: int, write: _Write) -> None:
    block, out = _block(row)
    w16 = Span(w.buffer.view("float16"))
    with serial(width // GROUP) as group:
        at = let((block * (width // GROUP) + group) * block_bytes(Format.Q8))
        scale = splat(cast(w16.at(at // 2 + out), "float32"), 4)
        for quad in range(8):
            codes = w.load(at + codes_offset(Format.Q8) + (quad * OUT_BLOCK + out) * 4, 4)
            write(let(group * GROUP + quad * 4), let(cast(bits(codes, "int8x4"), "float32x4") * scale))


def _read_q4(w: Span, row: Expr, width: int, write: _Write, fmt: Format) -> None:
    block, out = _block(row)
    w16 = Span(w.buffer.view("float16"))
    with serial(width // GROUP) as group:
        at = let((block * (width // GROUP) + group) * block_bytes(fmt))
        scale = splat(cast(w16.at(at // 2 + out), "float32"), 4)
        if fmt is Format.Q4:
            minimum = splat(cast(w16.at(at // 2 + OUT_BLOCK + out), "float32"), 4)
        else:
            minimum = let(scale * splat(f32(-Q4S_ZERO), 4))
        for step in range(4):
            codes = w.load(at + codes_offset(fmt) + (step * OUT_BLOCK + out) * 4, 4)
            low = let(codes & splat(tirx.IntImm("uint8", 15), 4))
            high = let(codes >> splat(tirx.IntImm("uint8", 4), 4))
            for part, nibbles in enumerate((low, high)):
                value = fma(cast(nibbles, "float32x4"), scale, minimum)
                write(let(group * GROUP + part * 16 + step * 4), value)


def _read_q3(w: Span, row: Expr, width: int, write: _Write) -> None:
    block, out = _block(row)
    w16 = Span(w.buffer.view("float16"))

    def masked(value: Expr, shift: int, mask: int) -> Expr:
        shifted = let(value >> splat(tirx.IntImm("uint8", shift), 4)) if shift else value
        return let(shifted & splat(tirx.IntImm("uint8", mask), 4))

    with serial(width // GROUP) as group:
        at = let((block * (width // GROUP) + group) * block_bytes(Format.Q3))
        scale = splat(cast(w16.at(at // 2 + out), "float32"), 4)
        zero = splat(cast(w.at(at + SCALE_BYTES + out), "float32"), 4)
        minimum = let(scale * let(zero * splat(f32(-1 / Q3_PARTS), 4)))
        first = let(at + codes_offset(Format.Q3) + out * 4)
        a, b, c = (w.load(first + step * 4 * OUT_BLOCK, 4) for step in range(3))
        last = let(masked(a, 6, 3) | masked(b, 4, 4)), let(masked(c, 6, 3) | masked(b, 5, 4))
        steps = [(masked(pair, 0, 7), masked(pair, 3, 7)) for pair in (a, b, c)]
        for step, pair in enumerate([*steps, last]):
            for half, codes in enumerate(pair):
                value = fma(cast(codes, "float32x4"), scale, minimum)
                write(let(group * GROUP + half * 16 + step * 4), value)


def _read_mxfp4(w: Span, row: Expr, width: int, write: _Write) -> None:
    block, out = _block(row)
    with serial(width // GROUP) as group:
        at = let((block * (width // GROUP) + group) * block_bytes(Format.MXFP4))
        power = bits(let(cast(w.at(at + out), "uint32") << tirx.IntImm("uint32", 23)), "float32")
        scale = splat(let(power * f32(0.5)), 4)
        minimum = let(scale * splat(f32(-ZERO_HALVES), 4))
        for step in range(4):
            codes = w.load(at + codes_offset(Format.MXFP4) + (step * OUT_BLOCK + out) * 4, 4)
            low = let(codes & splat(tirx.IntImm("uint8", 15), 4))
            high = let(codes >> splat(tirx.IntImm("uint8", 4), 4))
            for part, nibbles in enumerate((low, high)):
                value = fma(cast(PLAIN.mxfp4_halves(nibbles), "float32x4"), scale, minimum)
                write(let(group * GROUP + part * 16 + step * 4), value)
