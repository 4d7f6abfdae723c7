"""Products of integers in groups of 32: q8, q4, q4s and q3 weights, int8 activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tvm import tirx

from cupola.kernels.cpu.emit import (
    Expr,
    Span,
    bits,
    branch,
    cast,
    f32,
    fma,
    i64,
    lanes_of,
    let,
    registers,
    scratch,
    serial,
    splat,
    tiles,
)
from cupola.kernels.cpu.isa import Isa, dot4_broadcast
from cupola.kernels.cpu.linear_spec import BlockProduct, Finish, LinearSpec, Rows
from cupola.kernels.cpu.row_pairs import Octet, dots_by_pairs
from cupola.quantize.formats import GROUP, Q3_PARTS, Q4S_ZERO, Format
from cupola.quantize.layouts import OUT_BLOCK, SCALE_BYTES, block_bytes, codes_offset
from cupola.quantize.mxfp4 import ZERO_HALVES

QUADS = GROUP // 4  # dot-product steps of four inputs in a group
MANY_ROWS = 32  # from here on unpacking a block into scratch pays, where registers are few
WIDE_TILES = (8, 7, 6, 5, 4, 3, 2, 1)  # rows at a time with 32 registers; more than 8 would contend for sets of the L1
AHEAD = 16384  # bytes between the weights that are multiplied and those that are asked of memory
LONG_INPUTS = 1024  # so many, and a few rows wait for memory unless it is asked ahead; below, asking costs more
LINE = 64  # bytes of memory that one request brings


@dataclass(frozen=True)
class _Block:
    """The weights of one column block, group by group, wherever they lie.

    Args:
        place: group -> where it begins in w; None where the weights lie in scratch.
        dots: (group, row offsets in q) -> integer dot products of the group [row][part], as the instruction set adds.
        accumulate: (group, part, sums, dot, (d, sum of the row's integers)) -> sums with the group's share.
    """

    isa: Isa
    place: Callable[[Expr], Expr] | None
    dots: Callable[[Expr, list[Expr]], list[list[Expr]]]
    accumulate: Callable[[Expr, int, Expr, Expr, tuple[Expr, Expr]], Expr]

    @property
    def parts(self) -> int:
        """Vectors of outputs."""
        return OUT_BLOCK // self.isa.lanes


def q8_product(spec: LinearSpec, isa: Isa, rows: Rows, spans: dict[str, Span]) -> BlockProduct:
    def block_product(block: Expr, finish: Finish) -> None:
        sizes = WIDE_TILES if isa.registers >= 32 else (4, 2, 1)
        _cover(spec, spans, _q8_block(spec, isa, spans, _places(spec, block)), rows, sizes, finish)

    return block_product


def _places(spec: LinearSpec, block: Expr) -> Callable[[Expr], Expr]:
    """Where in w each group of a block begins."""
    return lambda group: let((block * (spec.inputs // GROUP) + group) * block_bytes(spec.format))


def _q8_block(spec: LinearSpec, isa: Isa, spans: dict[str, Span], place: Callable[[Expr], Expr]) -> _Block:
    q, w = spans["q"], spans["w"]
    w16 = Span(w.buffer.view("float16"))

    def load(at: Expr, part: int, quad: int) -> tuple[Expr, ...]:
        place = at + codes_offset(spec.format) + quad * 4 * OUT_BLOCK + part * isa.bytes
        return isa.as_factor(bits(w.load(place, isa.bytes), f"int8x{isa.bytes}"))

    def dots(group: Expr, rows: list[Expr]) -> list[list[Expr]]:
        at = place(group)
        parts = OUT_BLOCK // isa.lanes
        if isa.add_matrices is not None and len(rows) > 1:
            loaded = (
                (quad, tuple((load(at, part, quad)[0], load(at, part, quad + 1)[0]) for part in range(parts)))
                for quad in range(0, QUADS, 2)
            )
            return dots_by_pairs(isa, q, rows, (Octet(4 * quad, steps) for quad, steps in loaded))
        sums: list[list[Expr | None]] = [[None] * parts for _ in rows]
        for quad in range(QUADS):
            factors = [load(at, part, quad) for part in range(parts)]
            for r, row in enumerate(rows):
                value = dot4_broadcast(_quad(q, row, quad), isa.lanes)
                for part, factor in enumerate(factors):
                    sums[r][part] = isa.add_integers(factor, value, sums[r][part])
        return sums

    def accumulate(group: Expr, part: int, sums: Expr, dot: Expr, scales: tuple[Expr, Expr]) -> Expr:
        d, total = scales
        dtype = f"float32x{isa.lanes}"
        exact = cast(dot, dtype)
        if isa.excess:
            exact = fma(splat(f32(-isa.excess), isa.lanes), total, exact)
        scale = cast(w16.load(place(group) // 2 + part * isa.lanes, isa.lanes), dtype)
        return fma(let(exact * scale), d, sums)

    return _Block(isa, place, dots, accumulate)


@dataclass(frozen=True)
class _FewBits:
    """Where the weights of one block of 4 or 3 bits are read: codes as bytes, scales and minima as float32.

    Args:
        place: as in `_Block`.
        codes: (group, part, step) -> inputs 4 step.. and 16 + 4 step.. of a group.
        scale, minimum: (group, part) -> of each output.
        wide: codes are up to 24, so that half a group is what `Isa.add_codes` can add up.
    """

    place: Callable[[Expr], Expr] | None
    codes: Callable[[Expr, int, int], tuple[Expr, Expr]]
    scale: Callable[[Expr, int], Expr]
    minimum: Callable[[Expr, int], Expr]
    wide: bool = False


def few_bits_product(spec: LinearSpec, isa: Isa, rows: Rows, spans: dict[str, Span]) -> BlockProduct:
    def block_product(block: Expr, finish: Finish) -> None:
        packed = _packed(spec, isa, spans["w"], _places(spec, block))

        def few(sizes: tuple[int, ...] = (3, 2, 1)) -> None:
            _cover(spec, spans, _few_bits_block(isa, spans["q"], packed), rows, sizes, finish)

        def many() -> None:
            unpacked = _few_bits_block(isa, spans["q"], _unpacked(spec, isa, packed))
            _cover(spec, spans, unpacked, rows, (4, 2, 1), finish)

        if isa.registers >= 32:
            few(WIDE_TILES)
        else:
            branch(rows.count < i64(MANY_ROWS), few, many)

    return block_product


def _packed(spec: LinearSpec, isa: Isa, w: Span, place: Callable[[Expr], Expr]) -> _FewBits:
    """Straight out of memory."""
    w16 = Span(w.buffer.view("float16"))
    unpack = _three_bits if spec.format is Format.Q3 else _four_bits
    if spec.format is Format.MXFP4:
        return _packed_mxfp4(isa, w, place)

    def codes(group: Expr, part: int, step: int) -> tuple[Expr, Expr]:
        first = let(place(group) + codes_offset(spec.format) + part * isa.bytes)
        return unpack(lambda s: w.load(first + s * 4 * OUT_BLOCK, isa.bytes), step)

    def factor(group: Expr, part: int, first: int) -> Expr:
        return cast(w16.load(place(group) // 2 + first + part * isa.lanes, isa.lanes), f"float32x{isa.lanes}")

    def scale(group: Expr, part: int) -> Expr:
        return factor(group, part, 0)

    def minimum(group: Expr, part: int) -> Expr:
        if spec.format is Format.Q4:
            return factor(group, part, OUT_BLOCK)
        if spec.format is Format.Q3:
            zero = w.load(place(group) + SCALE_BYTES + part * isa.lanes, isa.lanes)
            parts = let(cast(zero, f"float32x{isa.lanes}") * splat(f32(-1 / Q3_PARTS), isa.lanes))
            return let(scale(group, part) * parts)  # exact: 11 bits times 8
        return let(scale(group, part) * splat(f32(-Q4S_ZERO), isa.lanes))  # exact, as if it were stored

    return _FewBits(place, codes, scale, minimum)


def _packed_mxfp4(isa: Isa, w: Span, place: Callable[[Expr], Expr]) -> _FewBits:
    """The same of floats of 4 bits, as integers of halves."""
    dtype = f"float32x{isa.lanes}"

    def codes(group: Expr, part: int, step: int) -> tuple[Expr, Expr]:
        first = let(place(group) + codes_offset(Format.MXFP4) + part * isa.bytes)
        low, high = _four_bits(lambda s: w.load(first + s * 4 * OUT_BLOCK, isa.bytes), step)
        return isa.mxfp4_halves(low), isa.mxfp4_halves(high)

    def scale(group: Expr, part: int) -> Expr:
        exponents = cast(w.load(place(group) + part * isa.lanes, isa.lanes), f"uint32x{isa.lanes}")
        power = bits(let(exponents << splat(tirx.IntImm("uint32", 23), isa.lanes)), dtype)
        return let(power * splat(f32(0.5), isa.lanes))

    def minimum(group: Expr, part: int) -> Expr:
        return let(scale(group, part) * splat(f32(-ZERO_HALVES), isa.lanes))

    return _FewBits(place, codes, scale, minimum, wide=True)


def _four_bits(load: Callable[[int], Expr], step: int) -> tuple[Expr, Expr]:
    pair = load(step)
    return _masked(pair, 15), _shifted(pair, 4)


def _three_bits(load: Callable[[int], Expr], step: int) -> tuple[Expr, Expr]:
    """Three steps hold two codes in each byte, the fourth is what they leave of theirs (`layouts`)."""
    if step < 3:
        pair = load(step)
        return _masked(pair, 7), _masked(_shifted(pair, 3), 7)
    low, high, middle = _shifted(load(0), 6), _shifted(load(2), 6), load(1)
    return let(low | _masked(_shifted(middle, 4), 4)), let(high | _masked(_shifted(middle, 5), 4))


def _masked(values: Expr, mask: int) -> Expr:
    return let(values & splat(tirx.IntImm("uint8", mask), lanes_of(values)))


def _shifted(values: Expr, count: int) -> Expr:
    return let(values >> splat(tirx.IntImm("uint8", count), lanes_of(values)))


def _unpacked(spec: LinearSpec, isa: Isa, packed: _FewBits) -> _FewBits:
    """Copied into scratch, once for all rows."""
    groups = spec.inputs // GROUP
    codes, factors = scratch(groups * GROUP * OUT_BLOCK, "uint8"), scratch(groups * 2 * OUT_BLOCK)

    def code(group: Expr, part: int, step: int, nibble: int) -> Expr:
        return let(((group * 4 + step) * 2 + nibble) * (4 * OUT_BLOCK) + part * isa.bytes)

    def factor(group: Expr, part: int, kind: int) -> Expr:
        return let((group * 2 + kind) * OUT_BLOCK + part * isa.lanes)

    with serial(groups) as group:
        for part in range(OUT_BLOCK // isa.lanes):
            for step in range(4):
                for nibble, values in enumerate(packed.codes(group, part, step)):
                    codes.store(code(group, part, step, nibble), values)
            factors.store(factor(group, part, 0), packed.scale(group, part))
            factors.store(factor(group, part, 1), packed.minimum(group, part))
    return _FewBits(
        None,
        lambda g, p, step: (codes.load(code(g, p, step, 0), isa.bytes), codes.load(code(g, p, step, 1), isa.bytes)),
        lambda g, part: factors.load(factor(g, part, 0), isa.lanes),
        lambda g, part: factors.load(factor(g, part, 1), isa.lanes),
        packed.wide,
    )


def _few_bits_block(isa: Isa, q: Span, weights: _FewBits) -> _Block:
    def dots(group: Expr, rows: list[Expr]) -> list[list[Expr]]:
        # Sums of 16 products, each at most 15 * 127, stay below 2^15: int16 is wide enough for a whole group.
        parts = OUT_BLOCK // isa.lanes
        if isa.add_matrices is not None and len(rows) > 1:
            return dots_by_pairs(isa, q, rows, _code_octets(weights, group, parts))
        if weights.wide:
            low, high = (_half_dots(isa, q, weights, group, rows, nibble) for nibble in range(2))
            return [[let(a + b) for a, b in zip(*sums, strict=True)] for sums in zip(low, high, strict=True)]
        sums: list[list[Expr | None]] = [[None] * parts for _ in rows]
        for step in range(4):
            codes = [weights.codes(group, part, step) for part in range(parts)]
            for nibble in range(2):
                for r, row in enumerate(rows):
                    value = dot4_broadcast(_quad(q, row, nibble * 4 + step), isa.lanes)
                    for part in range(parts):
                        sums[r][part] = isa.add_codes(codes[part][nibble], value, sums[r][part])
        return [[isa.widen(part_sums) for part_sums in row_sums] for row_sums in sums]

    def accumulate(group: Expr, part: int, sums: Expr, dot: Expr, scales: tuple[Expr, Expr]) -> Expr:
        d, total = scales
        scaled = let(cast(dot, f"float32x{isa.lanes}") * weights.scale(group, part))
        return fma(fma(weights.minimum(group, part), total, scaled), d, sums)

    return _Block(isa, weights.place, dots, accumulate)


def _code_octets(weights: _FewBits, group: Expr, parts: int) -> Iterator[Octet]:
    """The codes of a group by eight inputs, those of a byte's two nibbles one after the other."""
    for step in (0, 2):
        codes = [(weights.codes(group, part, step), weights.codes(group, part, step + 1)) for part in range(parts)]
        for nibble in range(2):
            yield Octet(16 * nibble + 4 * step, tuple((first[nibble], next_[nibble]) for first, next_ in codes))


def _half_dots(isa: Isa, q: Span, weights: _FewBits, group: Expr, rows: list[Expr], nibble: int) -> list[list[Expr]]:
    """The dot products of one half of a group."""
    parts = OUT_BLOCK // isa.lanes
    sums: list[list[Expr | None]] = [[None] * parts for _ in rows]
    for step in range(4):
        codes = [weights.codes(group, part, step)[nibble] for part in range(parts)]
        for r, row in enumerate(rows):
            value = dot4_broadcast(_quad(q, row, nibble * 4 + step), isa.lanes)
            for part in range(parts):
                sums[r][part] = isa.add_codes(codes[part], value, sums[r][part])
    return [[isa.widen(part_sums) for part_sums in row_sums] for row_sums in sums]


# Tiles: some rows and one column block


def _cover(
    spec: LinearSpec, spans: dict[str, Span], block: _Block, all_rows: Rows, sizes: tuple[int, ...], finish: Finish
) -> None:
    """All rows, in tiles of these sizes."""
    asking = _asking(spec, spans["w"], block)

    def tile(first: Expr, rows: int) -> None:
        in_registers = rows == 1 or block.isa.registers >= 32
        emit = _tile if in_registers else _long_tile
        places = all_rows.places(first, rows)

        def ask() -> None:
            emit(spec, spans, asking, first, places, finish)

        def read() -> None:
            emit(spec, spans, block, first, places, finish)

        if rows == 1 or block.place is None:
            read()  # one row reads too fast for requests of its own to help the processor's
        elif spec.inputs >= LONG_INPUTS:
            ask()
        elif rows == sizes[0]:
            branch(
                all_rows.count > i64(rows), ask, read
            )  # while a block is read again and again, the processor asks too late
        else:
            read()

    tiles(all_rows.count, sizes, tile)


def _asking(spec: LinearSpec, w: Span, block: _Block) -> _Block:
    """The same block; with each group, memory is asked for one to come."""

    def dots(group: Expr, rows: list[Expr]) -> list[list[Expr]]:
        assert block.place is not None
        found = block.dots(group, rows)
        for line in range(0, block_bytes(spec.format), LINE):
            w.prefetch(block.place(group) + (AHEAD + line))
        return found

    return replace(block, dots=dots)


def _tile(
    spec: LinearSpec, spans: dict[str, Span], block: _Block, first: Expr, places: list[Expr], finish: Finish
) -> None:
    """Integer products and float sums of a group in one go, all in registers."""
    groups, rows = spec.inputs // GROUP, len(places)
    parts, lanes = block.parts, block.isa.lanes
    sums = registers(rows * parts, f"float32x{lanes}", splat(f32(0.0), lanes))
    with serial(groups) as group:
        dots = block.dots(group, _row_offsets(spec, places, group))
        _accumulate(spec, spans, block, group, places, sums, lambda r, part: dots[r][part])
    for at in range(rows * parts):
        finish(let(first + at // parts), at % parts, let(sums.get(at)))


CHUNK = 16  # groups whose dot products wait in scratch for their scales


def _long_tile(
    spec: LinearSpec, spans: dict[str, Span], block: _Block, first: Expr, places: list[Expr], finish: Finish
) -> None:
    """A chunk of groups is multiplied first and scaled after, so that neither loop runs out of registers."""
    groups, rows = spec.inputs // GROUP, len(places)
    parts, lanes = block.parts, block.isa.lanes
    # The float sums share a block with the dot products: in one of their own, small as it is, LLVM would promote them
    # to registers, and spill them where they are used.
    dots = scratch((CHUNK + 1) * rows * OUT_BLOCK, "int32")
    sums, first_sum = dots.viewed("float32"), CHUNK * rows * OUT_BLOCK
    for at in range(rows * parts):
        sums.store(first_sum + at * lanes, splat(f32(0.0), lanes))

    def slot(j: Expr, r: int, part: int) -> Expr:
        return let(((j * rows + r) * parts + part) * lanes)

    with serial(-(-groups // CHUNK)) as chunk:
        start = let(chunk * CHUNK)
        count = let(tirx.min(i64(CHUNK), i64(groups) - start))
        with serial(count) as j:
            group = let(start + j)
            found = block.dots(group, _row_offsets(spec, places, group))
            for r in range(rows):
                for part in range(parts):
                    dots.store(slot(j, r, part), found[r][part])
        running = registers(rows * parts, f"float32x{lanes}")
        for at in range(rows * parts):
            running.put(at, sums.load(first_sum + at * lanes, lanes))
        with serial(count) as j:
            group = let(start + j)
            _accumulate(spec, spans, block, group, places, running, lambda r, part: dots.load(slot(j, r, part), lanes))
        for at in range(rows * parts):
            sums.store(first_sum + at * lanes, running.get(at))

    for at in range(rows * parts):
        finish(let(first + at // parts), at % parts, sums.load(first_sum + at * lanes, lanes))


def _accumulate(
    spec: LinearSpec,
    spans: dict[str, Span],
    block: _Block,
    group: Expr,
    places: list[Expr],
    sums: Span,
    dot: Callable[[int, int], Expr],
) -> None:
    """Adds one group's share to the float sums of every row and part."""
    s, lanes, parts = spans["s"], block.isa.lanes, block.parts
    for r, place in enumerate(places):
        at = let((place * (spec.inputs // GROUP) + group) * 2)
        scales = (splat(s.at(at), lanes), splat(s.at(at + 1), lanes))
        for part in range(parts):
            i = r * parts + part
            sums.put(i, block.accumulate(group, part, sums.get(i), dot(r, part), scales))


def _row_offsets(spec: LinearSpec, places: list[Expr], group: Expr) -> list[Expr]:
    """Where each row's integers of a group begin."""
    return [let(place * spec.inputs + group * GROUP) for place in places]


def _quad(q: Span, row: Expr, quad: int) -> Expr:
    """Four neighbouring int8 activations as one int32."""
    return bits(q.load(row + quad * 4, 4), "int32")
