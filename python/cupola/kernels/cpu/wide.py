"""Products with q16 weights (`quantize/wide.py`), and activations as integers of 14 bits.

A quantized row of K values is int16[K] and, for each group of 32, its scale max|x| / LIMIT. Within a group sums of
integers are exact; groups are added as floats in their order, so that a row's result is the same bits in whatever
company, and on every instruction set.
"""

from __future__ import annotations

from collections.abc import Callable

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
    i32,
    let,
    max_lanes,
    registers,
    rounded16,
    select,
    serial,
    splat,
    tiles,
)
from cupola.kernels.cpu.isa import Isa
from cupola.kernels.cpu.linear_spec import BlockProduct, Finish, LinearSpec, Rows
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import OUT_BLOCK
from cupola.quantize.wide import LIMIT, ROW_BYTES

PAIRS = GROUP // 2


def row_args(n: Expr, width: int) -> dict[str, Arg]:
    """Where a quantized row goes."""
    return {"q": Arg((n, width), "int16"), "s": Arg((n, width // GROUP), "float32")}


def quantize_row(width: int, value: Callable[[Expr], Expr], q: Span, s: Span, base: Expr) -> None:
    """Quantizes the row whose values `value(offset)` gives, eight at a time; it begins at `base` in q."""
    with serial(width // GROUP) as group:
        values = [value(let(group * GROUP + part * LANES)) for part in range(GROUP // LANES)]
        a, b, c, d = (let(tirx.abs(v)) for v in values)
        largest = max_lanes(let(tirx.max(tirx.max(a, b), tirx.max(c, d))))
        inverse = splat(select(largest > f32(0.0), let(f32(LIMIT) / largest), f32(0.0)))
        for part, v in enumerate(values):
            q.store(base + group * GROUP + part * LANES, rounded16(v, inverse))
        s.put(let(base // GROUP + group), let(largest * f32(1.0 / LIMIT)))


def q16_product(spec: LinearSpec, isa: Isa, rows: Rows, spans: dict[str, Span]) -> BlockProduct:
    """Tiles of as many rows as have room for their sums: those of a group, and those of all."""
    sizes = range(8, 0, -1) if isa.registers >= 32 else (2, 1)

    def block_product(block: Expr, finish: Finish) -> None:
        def tile(first: Expr, count: int) -> None:
            _tile(spec, isa, spans, block, first, rows.places(first, count), finish)

        tiles(rows.count, sizes, tile)

    return block_product


def _tile(
    spec: LinearSpec, isa: Isa, spans: dict[str, Span], block: Expr, first: Expr, places: list[Expr], finish: Finish
) -> None:
    q, s, w, rows = spans["q"], spans["s"], spans["w"], len(places)
    groups, parts, lanes = spec.inputs // GROUP, OUT_BLOCK // isa.lanes, isa.lanes
    base = let(block * ((spec.inputs // 2 + 1) * ROW_BYTES))
    sums = registers(rows * parts, f"float32x{lanes}", splat(f32(0.0), lanes))
    with serial(groups) as group:
        starts = [let(place * spec.inputs + group * GROUP) for place in places]
        dots = [splat(i32(0), lanes)] * (rows * parts)
        for pair in range(PAIRS):
            at = let(base + (group * PAIRS + pair + 1) * ROW_BYTES)
            weights = [bits(w.load(at + p * isa.bytes, isa.bytes), f"int16x{2 * lanes}") for p in range(parts)]
            for r, start in enumerate(starts):
                value = bits(splat(bits(q.load(start + pair * 2, 2), "int32"), lanes), f"int16x{2 * lanes}")
                for p, weight in enumerate(weights):
                    dots[r * parts + p] = isa.add_pairs(dots[r * parts + p], weight, value)
        for r, place in enumerate(places):
            scale = splat(s.at(place * groups + group), lanes)
            for i in range(r * parts, (r + 1) * parts):
                sums.put(i, fma(cast(dots[i], f"float32x{lanes}"), scale, sums.get(i)))
    for i in range(rows * parts):
        at = base + i % parts * isa.bytes
        scales = bits(w.load(at, isa.bytes), f"float32x{lanes}")
        finish(let(first + i // parts), i % parts, let(sums.get(i) * scales))
