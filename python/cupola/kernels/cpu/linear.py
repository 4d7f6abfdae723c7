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
MANY_ROWS = 16  # from here on unpacking a block into scratch pays

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
            for at in range(rows * HALVES):
                finish(let(first + at // HALVES), at % HALVES, let(sums.get(at)))

        tiles(n, (6, 2, 1), tile)

    return block_product


# Integers in groups of 32


@dataclass(frozen=True)
class _Block:
    """The weights of one column block, group by group, wherever they lie.

    Args:
        dots: (group, row offsets in q) -> integer dot products of the group, int32x8 [row][half].
        accumulate: (group, half, sums, dot, (d, d * sum of the row's integers)) -> sums with the group's share.
    """

    dots: Callable[[Expr, list[Expr]], list[list[Expr]]]
    accumulate: Callable[[Expr, int, Expr, Expr, tuple[Expr, Expr]], Expr]


def _q8(spec: LinearSpec, isa: Isa, n: Expr, spans: dict[str, Span]) -> BlockProduct:
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


def _q4(spec: LinearSpec, isa: Isa, n: Expr, spans: dict[str, Span]) -> BlockProduct:
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


_BLOCK_PRODUCTS: dict[Format, Callable[[LinearSpec, Isa, Expr, dict[str, Span]], BlockProduct]] = {
    Format.F32: _f32,
    Format.Q8: _q8,
    Format.Q4: _q4,
}
