"""Products of integers in groups of 32: q8 and q4 weights, int8 activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Expr,
    Index,
    Span,
    bits,
    branch,
    cast,
    f32,
    fma,
    i64,
    let,
    registers,
    scratch,
    serial,
    splat,
    tiles,
)
from cupola.kernels.cpu.isa import Isa, dot4_broadcast
from cupola.kernels.cpu.linear_spec import HALVES, BlockProduct, Finish, LinearSpec
from cupola.quantize.formats import GROUP
from cupola.quantize.layouts import OUT_BLOCK, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES

QUADS = GROUP // 4  # dot-product steps of four inputs in a group
MANY_ROWS = 16  # from here on unpacking a block into scratch pays


@dataclass(frozen=True)
class _Block:
    """The weights of one column block, group by group, wherever they lie.

    Args:
        dots: (group, row offsets in q) -> integer dot products of the group, int32x8 [row][half].
        accumulate: (group, half, sums, dot, (d, d * sum of the row's integers)) -> sums with the group's share.
    """

    dots: Callable[[Expr, list[Expr]], list[list[Expr]]]
    accumulate: Callable[[Expr, int, Expr, Expr, tuple[Expr, Expr]], Expr]


def q8_product(spec: LinearSpec, isa: Isa, n: Expr, spans: dict[str, Span]) -> BlockProduct:
    def block_product(block: Expr, finish: Finish) -> None:
        weights = _q8_block(spec, isa, spans, block)
        tiles(n, (4, 2, 1), lambda first, rows: _tile(spec, spans, weights, first, rows, finish))

    return block_product


def _q8_block(spec: LinearSpec, isa: Isa, spans: dict[str, Span], block: Expr) -> _Block:
    q, w = spans["q"], spans["w"]
    w16 = Span(w.buffer.view("float16"))

    def offset(group: Expr) -> Expr:
        return let((block * (spec.inputs // GROUP) + group) * Q8_BLOCK_BYTES)

    def load(at: Expr, half: int, quad: int) -> tuple[Expr, Expr]:
        """Weights and their magnitudes: |w| is the unsigned factor, the sign goes to the activation."""
        weight = bits(w.load(at + 2 * OUT_BLOCK + (half * QUADS + quad) * 32, 32), "int8x32")
        return weight, bits(let(tirx.abs(weight)), "uint8x32")

    def dots(group: Expr, rows: list[Expr]) -> list[list[Expr]]:
        at = offset(group)
        sums: list[dict[int, Expr]] = [{} for _ in rows]
        for quad in range(QUADS):
            weights = [load(at, half, quad) for half in range(HALVES)]
            for r, row in enumerate(rows):
                value = dot4_broadcast(_quad(q, row, quad))
                for half, (weight, magnitude) in enumerate(weights):
                    step = isa.add_pairs(isa.mul_pairs(magnitude, isa.negate_where(value, weight)))
                    sums[r][half] = let(sums[r][half] + step) if half in sums[r] else step
        return [[row_sums[half] for half in range(HALVES)] for row_sums in sums]

    def accumulate(group: Expr, half: int, sums: Expr, dot: Expr, scales: tuple[Expr, Expr]) -> Expr:
        scale = cast(w16.load(offset(group) // 2 + half * LANES), "float32x8")
        return fma(let(cast(dot, "float32x8") * scales[0]), scale, sums)

    return _Block(dots, accumulate)


@dataclass(frozen=True)
class _Q4Weights:
    """Where the weights of one q4 block are read: codes as bytes, scales and minima as float32."""

    codes: Callable[[Expr, int, int], tuple[Expr, Expr]]  # (group, half, step): inputs 4 step.. and 16 + 4 step..
    scale: Callable[[Expr, int], Expr]
    minimum: Callable[[Expr, int], Expr]


def q4_product(spec: LinearSpec, isa: Isa, n: Expr, spans: dict[str, Span]) -> BlockProduct:
    def block_product(block: Expr, finish: Finish) -> None:
        def few() -> None:
            weights = _q4_block(isa, spans["q"], _q4_packed(spec, spans["w"], block))
            tiles(n, (2, 1), lambda first, rows: _tile(spec, spans, weights, first, rows, finish))

        def many() -> None:
            weights = _q4_block(isa, spans["q"], _q4_unpacked(spec, _q4_packed(spec, spans["w"], block)))
            tiles(n, (4, 2, 1), lambda first, rows: _long_tile(spec, spans, weights, first, rows, finish))

        branch(n < i64(MANY_ROWS), few, many)

    return block_product


def _q4_packed(spec: LinearSpec, w: Span, block: Expr) -> _Q4Weights:
    """Straight out of memory."""
    w16 = Span(w.buffer.view("float16"))

    def offset(group: Expr) -> Expr:
        return let((block * (spec.inputs // GROUP) + group) * Q4_BLOCK_BYTES)

    def codes(group: Expr, half: int, step: int) -> tuple[Expr, Expr]:
        pair = w.load(offset(group) + 4 * OUT_BLOCK + (half * 4 + step) * 32, 32)
        low = let(pair & splat(tirx.IntImm("uint8", 15), 32))
        return low, let(pair >> splat(tirx.IntImm("uint8", 4), 32))

    def factor(group: Expr, half: int, first: int) -> Expr:
        return cast(w16.load(offset(group) // 2 + first + half * LANES), "float32x8")

    return _Q4Weights(codes, lambda g, half: factor(g, half, 0), lambda g, half: factor(g, half, OUT_BLOCK))


def _q4_unpacked(spec: LinearSpec, packed: _Q4Weights) -> _Q4Weights:
    """Copied into scratch, once for all rows."""
    groups = spec.inputs // GROUP
    codes, factors = scratch(groups * GROUP * OUT_BLOCK, "uint8"), scratch(groups * 2 * OUT_BLOCK)

    def code(group: Expr, half: int, step: int, part: int) -> Expr:
        return let((group * 16 + half * 8 + step * 2 + part) * 32)

    def factor(group: Expr, half: int, kind: int) -> Expr:
        return let((group * 4 + kind * 2 + half) * LANES)

    with serial(groups) as group:
        for half in range(HALVES):
            for step in range(4):
                for part, values in enumerate(packed.codes(group, half, step)):
                    codes.store(code(group, half, step, part), values)
            factors.store(factor(group, half, 0), packed.scale(group, half))
            factors.store(factor(group, half, 1), packed.minimum(group, half))
    return _Q4Weights(
        lambda g, half, step: (codes.load(code(g, half, step, 0), 32), codes.load(code(g, half, step, 1), 32)),
        lambda g, half: factors.load(factor(g, half, 0)),
        lambda g, half: factors.load(factor(g, half, 1)),
    )


def _q4_block(isa: Isa, q: Span, weights: _Q4Weights) -> _Block:
    def dots(group: Expr, rows: list[Expr]) -> list[list[Expr]]:
        # Sums of 16 products, each at most 15 * 127, stay below 2^15: int16 is wide enough for a whole group.
        sums: list[dict[int, Expr]] = [{} for _ in rows]
        for step in range(4):
            codes = [weights.codes(group, half, step) for half in range(HALVES)]
            for part in range(2):
                for r, row in enumerate(rows):
                    value = dot4_broadcast(_quad(q, row, part * 4 + step))
                    for half in range(HALVES):
                        product = isa.mul_pairs(codes[half][part], value)
                        sums[r][half] = let(sums[r][half] + product) if half in sums[r] else product
        return [[isa.add_pairs(row_sums[half]) for half in range(HALVES)] for row_sums in sums]

    def accumulate(group: Expr, half: int, sums: Expr, dot: Expr, scales: tuple[Expr, Expr]) -> Expr:
        d, d_sum = scales
        scaled = fma(let(cast(dot, "float32x8") * d), weights.scale(group, half), sums)
        return fma(weights.minimum(group, half), d_sum, scaled)

    return _Block(dots, accumulate)


# Tiles: some rows and one column block


def _tile(spec: LinearSpec, spans: dict[str, Span], block: _Block, first: Expr, rows: int, finish: Finish) -> None:
    """Integer products and float sums of a group in one go, all in registers."""
    groups = spec.inputs // GROUP
    sums = registers(rows * HALVES, fill=splat(f32(0.0)))
    with serial(groups) as group:
        dots = block.dots(group, _row_offsets(spec, first, rows, group))
        _accumulate(spec, spans, block, group, first, rows, sums, lambda r, half: dots[r][half])
    for at in range(rows * HALVES):
        finish(let(first + at // HALVES), at % HALVES, let(sums.get(at)))


CHUNK = 16  # groups whose dot products wait in scratch for their scales


def _long_tile(spec: LinearSpec, spans: dict[str, Span], block: _Block, first: Expr, rows: int, finish: Finish) -> None:
    """A chunk of groups is multiplied first and scaled after, so that neither loop runs out of registers."""
    groups = spec.inputs // GROUP
    sums = scratch(rows * OUT_BLOCK)
    dots = scratch(CHUNK * rows * OUT_BLOCK, "int32")
    for at in range(rows * HALVES):
        sums.store(at * LANES, splat(f32(0.0)))

    def slot(j: Expr, r: int, half: int) -> Expr:
        return let(((j * rows + r) * HALVES + half) * LANES)

    def chunk(start: Index, count: Index) -> None:
        with serial(count) as j:
            group = let(start + j)
            found = block.dots(group, _row_offsets(spec, first, rows, group))
            for r in range(rows):
                for half in range(HALVES):
                    dots.store(slot(j, r, half), found[r][half])
        running = registers(rows * HALVES)
        for at in range(rows * HALVES):
            running.put(at, sums.load(at * LANES))
        with serial(count) as j:
            group = let(start + j)
            _accumulate(spec, spans, block, group, first, rows, running, lambda r, half: dots.load(slot(j, r, half)))
        for at in range(rows * HALVES):
            sums.store(at * LANES, running.get(at))

    with serial(groups // CHUNK) as c:
        chunk(let(c * CHUNK), CHUNK)
    if groups % CHUNK:
        chunk(i64(groups // CHUNK * CHUNK), groups % CHUNK)
    for at in range(rows * HALVES):
        finish(let(first + at // HALVES), at % HALVES, sums.load(at * LANES))


def _accumulate(
    spec: LinearSpec,
    spans: dict[str, Span],
    block: _Block,
    group: Expr,
    first: Expr,
    rows: int,
    sums: Span,
    dot: Callable[[int, int], Expr],
) -> None:
    """Adds one group's share to the float sums of every row and half."""
    s = spans["s"]
    for r in range(rows):
        at = let(((first + r) * (spec.inputs // GROUP) + group) * 2)
        scales = (splat(s.at(at)), splat(s.at(at + 1)))
        for half in range(HALVES):
            i = r * HALVES + half
            sums.put(i, block.accumulate(group, half, sums.get(i), dot(r, half), scales))


def _row_offsets(spec: LinearSpec, first: Expr, rows: int, group: Expr) -> list[Expr]:
    """Where each row's integers of a group begin."""
    return [let((first + r) * spec.inputs + group * GROUP) for r in range(rows)]


def _quad(q: Span, row: Expr, quad: int) -> Expr:
    """Four neighbouring int8 activations as one int32."""
    return bits(q.load(row + quad * 4, 4), "int32")
