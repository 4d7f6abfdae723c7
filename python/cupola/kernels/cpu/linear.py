"""Matrix products y[n, N] = x[n, K] W[N, K]^T over packed weights, from one row to thousands.

The threads share the column blocks (16 outputs each), and every block's weights are read from memory once for all rows.
How a block meets its rows depends on how many there are, which is known only at run time:

    one row            unpack in registers, multiply, done: the speed of memory
    a few rows         the same, two rows at a time; the block stays in the L1 cache between them
    many rows (q4)     unpack the block once into scratch, then tiles of four rows

A row's arithmetic is the same sequence of operations on every one of these roads, so its result does not depend, to the
bit, on how many rows travel with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from cupola.kernels.cpu.emit import (
    LANES,
    Arg,
    Expr,
    Index,
    Span,
    bits,
    branch,
    cast,
    f32,
    fma,
    i64,
    kernel,
    let,
    parallel,
    region,
    registers,
    scratch,
    serial,
    silu,
    size_var,
    splat,
    tiles,
)
from cupola.kernels.cpu.isa import Isa, dot4_broadcast
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import OUT_BLOCK, Q4_BLOCK_BYTES, Q8_BLOCK_BYTES

HALVES = OUT_BLOCK // LANES  # vectors of outputs in a column block
QUADS = GROUP // 4  # dot-product steps of four inputs in a group
MANY_ROWS = 8  # from here on unpacking a block into scratch pays

Finish = Callable[[Expr, int, Expr], None]  # (row, half, sums): what becomes of a row's 8 outputs


@dataclass(frozen=True)
class LinearSpec:
    """One matrix product of a model.

    Args:
        format: how the weights are packed.
        inputs: K; a multiple of 32 for q8 and q4.
        outputs: N, before padding to whole column blocks.
        residual: add a tensor r[n, N] to the result.
        gated: W is [gate; up] of N/2 rows each, and the result is silu(gate) * up, [n, N/2] (Shazeer, 2020).
    """

    format: Format
    inputs: int
    outputs: int
    residual: bool = False
    gated: bool = False

    @property
    def blocks(self) -> int:
        """Column blocks of W."""
        return -(-self.outputs // OUT_BLOCK)

    @property
    def width(self) -> int:
        """Row length of y: whole column blocks."""
        return self.blocks * OUT_BLOCK // (2 if self.gated else 1)

    @property
    def name(self) -> str:
        return f"linear_{self.format.value}" + ("_gated" if self.gated else "") + ("_residual" if self.residual else "")


def linear(spec: LinearSpec, isa: Isa) -> tirx.PrimFunc:
    """Emits the product. Arguments: x (f32) or q, s (see `activation`); w; r when residual; y."""
    n = size_var("n")
    groups = spec.inputs // GROUP
    if spec.format is Format.F32:
        args = {"x": Arg((n, spec.inputs), "float32"), "w": Arg((spec.blocks, spec.inputs, OUT_BLOCK), "float32")}
    else:
        size = Q8_BLOCK_BYTES if spec.format is Format.Q8 else Q4_BLOCK_BYTES
        args = {
            "q": Arg((n, spec.inputs), "int8"),
            "s": Arg((n, groups, 2), "float32"),
            "w": Arg((spec.blocks, groups, size), "uint8"),
        }
    if spec.residual:
        args["r"] = Arg((n, spec.width), "float32")
    args["y"] = Arg((n, spec.width), "float32")

    def body(**spans: Span) -> None:
        block_product = _BLOCK_PRODUCTS[spec.format](spec, isa, n, spans)
        with region():
            if spec.gated:
                with parallel(spec.blocks // 2) as block:
                    block_product(block, _store(spec, spans, block))
                    block_product(let(block + spec.blocks // 2), _multiply_gate(spec, spans, block))
            else:
                with parallel(spec.blocks) as block:
                    block_product(block, _store(spec, spans, block))

    return kernel(spec.name, args, body)


# What becomes of the sums


def _store(spec: LinearSpec, spans: dict[str, Span], block: Expr) -> Finish:
    def finish(row: Expr, half: int, sums: Expr) -> None:
        at = let(row * spec.width + block * OUT_BLOCK + half * LANES)
        spans["y"].store(at, let(sums + spans["r"].load(at)) if spec.residual else sums)

    return finish


def _multiply_gate(spec: LinearSpec, spans: dict[str, Span], block: Expr) -> Finish:
    """The gate's sums lie in y already; these are the up projection's."""

    def finish(row: Expr, half: int, sums: Expr) -> None:
        at = let(row * spec.width + block * OUT_BLOCK + half * LANES)
        spans["y"].store(at, let(silu(spans["y"].load(at)) * sums))

    return finish


BlockProduct = Callable[[Expr, Finish], None]


# float32


def _f32(spec: LinearSpec, _: Isa, n: Expr, spans: dict[str, Span]) -> BlockProduct:
    x, w = spans["x"], spans["w"]

    def block_product(block: Expr, finish: Finish) -> None:
        base = let(block * (spec.inputs * OUT_BLOCK))

        def tile(first: Expr, rows: int) -> None:
            sums = registers(rows * HALVES, fill=splat(f32(0.0)))
            with serial(spec.inputs) as k:
                weights = [w.load(base + k * OUT_BLOCK + half * LANES) for half in range(HALVES)]
                for r in range(rows):
                    value = splat(x.at((first + r) * spec.inputs + k))
                    for half in range(HALVES):
                        at = r * HALVES + half
                        sums.put(at, fma(value, weights[half], sums.get(at)))
            _finish_tile(first, rows, sums, finish)

        tiles(n, (6, 2, 1), tile)

    return block_product


# int8, groups of 32


def _q8(spec: LinearSpec, isa: Isa, n: Expr, spans: dict[str, Span]) -> BlockProduct:
    q, s, w = spans["q"], spans["s"], spans["w"]
    w16 = Span(w.buffer.view("float16"))
    groups = spec.inputs // GROUP

    def block_product(block: Expr, finish: Finish) -> None:
        def tile(first: Expr, rows: int) -> None:
            sums = registers(rows * HALVES, fill=splat(f32(0.0)))
            with serial(groups) as group:
                at = let((block * groups + group) * Q8_BLOCK_BYTES)
                dots = _q8_dots(isa, q, w, at, [let((first + r) * spec.inputs + group * GROUP) for r in range(rows)])
                for r in range(rows):
                    d = splat(s.at(((first + r) * groups + group) * 2))
                    for half in range(HALVES):
                        scale = cast(w16.load(at // 2 + half * LANES), "float32x8")
                        scaled = let(cast(dots[r][half], "float32x8") * d)
                        sums.put(r * HALVES + half, fma(scaled, scale, sums.get(r * HALVES + half)))
            _finish_tile(first, rows, sums, finish)

        tiles(n, (4, 2, 1), tile)

    return block_product


def _q8_dots(isa: Isa, q: Span, w: Span, at: Expr, rows: list[Expr]) -> list[list[Expr]]:
    """Integer products of one group, [row][half]: |w| is the unsigned factor, the sign of w goes to the activation."""
    dots: list[list[Expr]] = [[] for _ in rows]
    for half in range(HALVES):
        for quad in range(QUADS):
            weight = bits(w.load(at + 2 * OUT_BLOCK + (half * QUADS + quad) * 32, 32), "int8x32")
            magnitude = bits(let(tirx.abs(weight)), "uint8x32")
            for r, row in enumerate(rows):
                value = dot4_broadcast(_quad(q, row, quad))
                step = isa.add_pairs(isa.mul_pairs(magnitude, isa.negate_where(value, weight)))
                if quad == 0:
                    dots[r].append(step)
                else:
                    dots[r][half] = let(dots[r][half] + step)
    return dots


# 4 bits, groups of 32, with a minimum


@dataclass(frozen=True)
class _Q4Weights:
    """Where a tile finds the weights of one group: nibbles as bytes, scales and minima as float32."""

    low: Callable[[int, int], tuple[Expr, Expr]]  # (half, step) -> inputs 4 step.. and 16 + 4 step.., as uint8x32
    scale: Callable[[int], Expr]
    minimum: Callable[[int], Expr]


def _q4(spec: LinearSpec, isa: Isa, n: Expr, spans: dict[str, Span]) -> BlockProduct:
    q, s, w = spans["q"], spans["s"], spans["w"]
    w16 = Span(w.buffer.view("float16"))
    groups = spec.inputs // GROUP

    def packed(block: Expr) -> Callable[[Expr], _Q4Weights]:
        def weights(group: Expr) -> _Q4Weights:
            at = let((block * groups + group) * Q4_BLOCK_BYTES)
            return _Q4Weights(
                low=lambda half, step: _nibbles(w.load(at + 4 * OUT_BLOCK + (half * 4 + step) * 32, 32)),
                scale=lambda half: cast(w16.load(at // 2 + half * LANES), "float32x8"),
                minimum=lambda half: cast(w16.load(at // 2 + OUT_BLOCK + half * LANES), "float32x8"),
            )

        return weights

    def unpacked(block: Expr) -> Callable[[Expr], _Q4Weights]:
        codes = scratch(groups * GROUP * OUT_BLOCK, "uint8")
        factors = scratch(groups * 2 * OUT_BLOCK)
        source = packed(block)
        with serial(groups) as group:
            weights = source(group)
            for half in range(HALVES):
                for step in range(4):
                    low, high = weights.low(half, step)
                    codes.store((group * 16 + half * 8 + step * 2) * 32, low)
                    codes.store((group * 16 + half * 8 + step * 2 + 1) * 32, high)
                factors.store((group * 4 + half) * LANES, weights.scale(half))
                factors.store((group * 4 + 2 + half) * LANES, weights.minimum(half))

        def weights_of(group: Expr) -> _Q4Weights:
            return _Q4Weights(
                low=lambda half, step: (
                    codes.load((group * 16 + half * 8 + step * 2) * 32, 32),
                    codes.load((group * 16 + half * 8 + step * 2 + 1) * 32, 32),
                ),
                scale=lambda half: factors.load((group * 4 + half) * LANES),
                minimum=lambda half: factors.load((group * 4 + 2 + half) * LANES),
            )

        return weights_of

    def block_product(block: Expr, finish: Finish) -> None:
        def few() -> None:
            tiles(n, (2, 1), lambda first, rows: _q4_tile(spec, isa, q, s, packed(block), first, rows, finish))

        def many() -> None:
            weights = unpacked(block)
            tiles(n, (4, 2, 1), lambda first, rows: _q4_long_tile(spec, isa, q, s, weights, first, rows, finish))

        branch(n < i64(MANY_ROWS), few, many)

    return block_product


def _nibbles(pair: Expr) -> tuple[Expr, Expr]:
    low = let(pair & splat(tirx.IntImm("uint8", 15), 32))
    high = let(pair >> splat(tirx.IntImm("uint8", 4), 32))
    return low, high


def _q4_tile(
    spec: LinearSpec,
    isa: Isa,
    q: Span,
    s: Span,
    weights_of: Callable[[Expr], _Q4Weights],
    first: Expr,
    rows: int,
    finish: Finish,
) -> None:
    """One or two rows: integer products and float sums of a group in one go, all in registers."""
    groups = spec.inputs // GROUP
    sums = registers(rows * HALVES, fill=splat(f32(0.0)))
    with serial(groups) as group:
        weights = weights_of(group)
        dots = _q4_dots(isa, q, weights, [let((first + r) * spec.inputs + group * GROUP) for r in range(rows)])
        for r in range(rows):
            for half in range(HALVES):
                at = r * HALVES + half
                scales = _row_scales(s, first + r, groups, group)
                sums.put(at, _q4_accumulate(sums.get(at), isa.add_pairs(dots[r][half]), weights, half, scales))
    _finish_tile(first, rows, sums, finish)


CHUNK = 16  # groups whose dot products wait in scratch for their scales


def _q4_long_tile(
    spec: LinearSpec,
    isa: Isa,
    q: Span,
    s: Span,
    weights_of: Callable[[Expr], _Q4Weights],
    first: Expr,
    rows: int,
    finish: Finish,
) -> None:
    """Four rows: a chunk of groups is multiplied first and scaled after, so that neither loop runs out of registers."""
    groups = spec.inputs // GROUP
    sums = scratch(rows * OUT_BLOCK)
    dots = scratch(CHUNK * rows * OUT_BLOCK, "int32")
    for at in range(rows * HALVES):
        sums.store(at * LANES, splat(f32(0.0)))

    def chunk(start: Index, count: Index) -> None:
        with serial(count) as j:
            group = let(start + j)
            found = _q4_dots(
                isa, q, weights_of(group), [let((first + r) * spec.inputs + group * GROUP) for r in range(rows)]
            )
            for r in range(rows):
                for half in range(HALVES):
                    dots.store(((j * rows + r) * HALVES + half) * LANES, isa.add_pairs(found[r][half]))
        running = registers(rows * HALVES)
        for at in range(rows * HALVES):
            running.put(at, sums.load(at * LANES))
        with serial(count) as j:
            group = let(start + j)
            weights = weights_of(group)
            for r in range(rows):
                scales = _row_scales(s, first + r, groups, group)
                for half in range(HALVES):
                    at = r * HALVES + half
                    dot = dots.load(((j * rows + r) * HALVES + half) * LANES)
                    running.put(at, _q4_accumulate(running.get(at), dot, weights, half, scales))
        for at in range(rows * HALVES):
            sums.store(at * LANES, running.get(at))

    with serial(groups // CHUNK) as c:
        chunk(let(c * CHUNK), CHUNK)
    if groups % CHUNK:
        chunk(i64(groups // CHUNK * CHUNK), groups % CHUNK)
    for r in range(rows):
        for half in range(HALVES):
            finish(let(first + r), half, sums.load((r * HALVES + half) * LANES))


def _q4_dots(isa: Isa, q: Span, weights: _Q4Weights, rows: list[Expr]) -> list[list[Expr]]:
    """Dot products of one group, [row][half], as int16 pairs: 8 sums of two products of at most 15 * 127 fit."""
    dots: list[list[Expr]] = [[None] * HALVES for _ in rows]
    for step in range(4):
        codes = [weights.low(half, step) for half in range(HALVES)]
        for part in range(2):
            for r, row in enumerate(rows):
                value = dot4_broadcast(_quad(q, row, part * 4 + step))
                for half in range(HALVES):
                    product = isa.mul_pairs(codes[half][part], value)
                    before = dots[r][half]
                    dots[r][half] = product if before is None else let(before + product)
    return dots


def _q4_accumulate(sums: Expr, dot: Expr, weights: _Q4Weights, half: int, scales: tuple[Expr, Expr]) -> Expr:
    """sums + scale * (d * dot) + minimum * (d * sum of activations)."""
    d, d_sum = scales
    scaled = let(cast(dot, "float32x8") * d)
    return fma(weights.minimum(half), d_sum, fma(scaled, weights.scale(half), sums))


def _row_scales(s: Span, row: Expr, groups: int, group: Expr) -> tuple[Expr, Expr]:
    at = let((row * groups + group) * 2)
    return splat(s.at(at)), splat(s.at(at + 1))


# Shared


def _quad(q: Span, row: Expr, quad: int) -> Expr:
    """Four neighbouring int8 activations as one int32."""
    return bits(q.load(row + quad * 4, 4), "int32")


def _finish_tile(first: Expr, rows: int, sums: Span, finish: Finish) -> None:
    for r in range(rows):
        for half in range(HALVES):
            finish(let(first + r), half, let(sums.get(r * HALVES + half)))


_BLOCK_PRODUCTS: dict[Format, Callable[[LinearSpec, Isa, Expr, dict[str, Span]], BlockProduct]] = {
    Format.F32: _f32,
    Format.Q8: _q8,
    Format.Q4: _q4,
}
