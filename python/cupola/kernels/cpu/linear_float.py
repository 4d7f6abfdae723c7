"""Products with weights that are floats: f32, f16 and bf16, widened in registers as they are read.

Nothing is unpacked beforehand: widening hides behind the arithmetic of a tile of rows, and one row waits for memory
anyway. What a single row must not do is wait for its own additions: with f32 a chain of them for each output is as fast
as memory is; with 16 bits there are two, one of the even inputs and one of the odd, which are added at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Expr,
    Index,
    Span,
    bits,
    cast,
    f32,
    fma,
    let,
    registers,
    serial,
    splat,
    tiles,
)
from cupola.kernels.cpu.isa import PLAIN, Isa
from cupola.kernels.cpu.linear_spec import HALVES, BlockProduct, Finish, LinearSpec, Rows
from cupola.quantize.formats import Format
from cupola.quantize.layouts import OUT_BLOCK

SUMS = 12  # vectors of sums that a tile keeps in 16 registers, beside weights and inputs
AHEAD = 256 * OUT_BLOCK  # weights between what is read and what is asked of memory


def float_product(spec: LinearSpec, isa: Isa, rows: Rows, spans: dict[str, Span]) -> BlockProduct:
    """Tiles of as many rows as have room for their sums."""
    chains = 1 if spec.format is Format.F32 else 2
    largest = SUMS // (chains * HALVES)

    def block_product(block: Expr, finish: Finish) -> None:
        base = let(block * (spec.inputs * OUT_BLOCK))
        tiles(
            rows.count,
            range(largest, 0, -1),
            lambda first, count: _tile(spec, isa, chains, spans, base, first, rows.places(first, count), finish),
        )

    return block_product


def _tile(
    spec: LinearSpec,
    isa: Isa,
    chains: int,
    spans: dict[str, Span],
    base: Expr,
    first: Expr,
    places: list[Expr],
    finish: Finish,
) -> None:
    """Some rows and one column block, whose weights begin at `base`."""
    x, w, rows = spans["x"], spans["w"], len(places)
    starts = [let(place * spec.inputs) for place in places]
    count = rows * HALVES
    sums = registers(chains * count, fill=splat(f32(0.0)))

    def accumulate(k: Index, chain: int) -> None:
        weights = _weights(spec.format, isa, w, let(base + k * OUT_BLOCK))
        for r, start in enumerate(starts):
            value = splat(x.at(start + k))
            for half in range(HALVES):
                at = chain * count + r * HALVES + half
                sums.put(at, fma(value, weights[half], sums.get(at)))

    with serial(spec.inputs // chains) as step:
        if rows > 1:  # one row reads too fast for requests of its own to help the processor's
            w.prefetch(base + step * (chains * OUT_BLOCK) + AHEAD)
        for chain in range(chains):
            accumulate(let(step * chains + chain), chain)
    for k in range(spec.inputs // chains * chains, spec.inputs):
        accumulate(k, 0)
    for r in range(rows):
        totals = [sums.get(r * HALVES + half) for half in range(HALVES)]
        if chains == 2:
            totals = [let(total + sums.get(count + r * HALVES + half)) for half, total in enumerate(totals)]
        for half, total in enumerate(_in_order(spec.format, totals)):
            finish(let(first + r), half, let(total))


def _weights(fmt: Format, isa: Isa, w: Span, at: Expr) -> list[Expr]:
    """The weights of one input as vectors of float32; `_in_order` knows which outputs they are of."""
    if fmt is not Format.BF16:
        halves = [w.load(at + half * LANES) for half in range(HALVES)]
        return [
            _widen_plainly(v) if fmt is Format.F16 and isa is PLAIN else cast(v, f"float32x{LANES}") for v in halves
        ]
    # Even outputs are the lower halves of words and odd ones the upper: one instruction each, where to widen
    # neighbours takes two.
    words = bits(w.load(at, OUT_BLOCK), f"uint32x{LANES}")
    even = let(words << splat(tirx.IntImm("uint32", 16)))
    odd = let(words & splat(tirx.IntImm("uint32", 0xFFFF0000)))
    return [bits(even, f"float32x{LANES}"), bits(odd, f"float32x{LANES}")]


def _widen_plainly(values: Expr) -> Expr:
    """float16 to float32, exact for finite numbers, on processors without an instruction for it.

    LLVM would call a function for each number there. The bits in the place of float32's are the number times 2^-112,
    because the two exponents differ in their bias by 112 (Giesen, 2012).
    """
    words = cast(bits(values, f"uint16x{LANES}"), f"uint32x{LANES}")
    shifted = let(let(words & splat(tirx.IntImm("uint32", 0x7FFF))) << splat(tirx.IntImm("uint32", 13)))
    magnitude = let(bits(shifted, f"float32x{LANES}") * splat(f32(2.0**112)))
    sign = let(let(words & splat(tirx.IntImm("uint32", 0x8000))) << splat(tirx.IntImm("uint32", 16)))
    return bits(let(bits(magnitude, f"uint32x{LANES}") | sign), f"float32x{LANES}")


def _in_order(fmt: Format, sums: Sequence[Expr]) -> Sequence[Expr]:
    """Sums of the outputs of `_weights` in the order of the outputs."""
    if fmt is not Format.BF16:
        return sums
    pairs = [i // 2 + i % 2 * LANES for i in range(OUT_BLOCK)]
    return [let(tirx.Shuffle(list(sums), pairs[half * LANES : (half + 1) * LANES])) for half in range(HALVES)]
