"""Packed weights as GPUs read them: the layouts of `quantize/layouts.py`, in words of 32 bits.

A matrix lies in blocks of 16 outputs. Within a block, what is read together is a *unit*: the weights of some
neighbouring outputs and one or several inputs. `Unit` gives them as floats, before scales and minima, which belong to a
whole unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cupola.kernels.emit import Expr, Span, bits, cast, f32, i32, let, select
from cupola.kernels.gpu.emit import split, u32
from cupola.quantize.formats import GROUP, Q3_PARTS, Q4S_ZERO, Format
from cupola.quantize.layouts import OUT_BLOCK, SCALE_BYTES, WORD, block_bytes, codes_offset, words_dtype, words_shape
from cupola.quantize.wide import ROW_BYTES

QUAD = 4  # words that a thread reads together
_TWO_A_WORD = (Format.F16, Format.BF16)
_DEPTHS = {Format.Q16: 2, Format.Q8: 4, Format.Q4: 8, Format.Q4S: 8, Format.MXFP4: 8, Format.Q3: GROUP}


@dataclass(frozen=True)
class Unit:
    """Weights of some outputs: codes[output][input] * scales[output] + minima[output].

    Args:
        inputs: where they are in a row.
        scales, minima: None: 1, and 0.
    """

    inputs: tuple[Expr, ...]
    codes: tuple[tuple[Expr, ...], ...]
    scales: tuple[Expr, ...] | None = None
    minima: tuple[Expr, ...] | None = None

    def value(self, output: int, i: int) -> Expr:
        """One weight."""
        code = self.codes[output][i]
        if self.scales is None:
            return code
        scaled = let(code * self.scales[output])
        return scaled if self.minima is None else let(scaled + self.minima[output])


@dataclass(frozen=True)
class Packed:
    """One matrix [outputs, inputs].

    Args:
        half: the device's code can name float16.
    """

    format: Format
    outputs: int
    inputs: int
    half: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return words_shape(self.format, (self.outputs, self.inputs))

    @property
    def dtype(self) -> str:
        return words_dtype(self.format).name

    @property
    def blocks(self) -> int:
        """Blocks of outputs, the last one filled up."""
        return -(-self.outputs // OUT_BLOCK)

    @property
    def in_word(self) -> int:
        """Outputs of one word."""
        return 2 if self.format in _TWO_A_WORD else 1

    @property
    def depth(self) -> int:
        """Inputs of a unit."""
        return _DEPTHS.get(self.format, 1)

    @property
    def units(self) -> int:
        """Units along the inputs."""
        return self.inputs // self.depth

    def unit(self, w: Span, block: Expr, k: Expr, first: Expr, count: int) -> Unit:
        """The k-th unit of outputs `first` to `first + count - 1` of a block.

        Args:
            first: a multiple of `count`.
            count: a power of two.
        """
        if self.format is Format.F32:
            at = let((block * self.inputs + k) * OUT_BLOCK + first)
            return Unit((k,), tuple((w.at(at + i),) for i in range(count)))
        if self.format in _TWO_A_WORD:
            base = let((block * self.inputs + k) * (OUT_BLOCK // 2))
            return Unit((k,), tuple((value,) for value in self._pairs(w, base, first, count)))
        if self.format is Format.Q16:
            return self._wide(w, block, k, first, count)
        return self._grouped(w, block, k, first, count)

    def _pairs(self, w: Span, base: Expr, first: Expr, count: int) -> tuple[Expr, ...]:
        """`count` 16-bit floats, two of which are a word: from the first-th on behind word `base`."""
        word, high = split(first, 2)
        if count == 1:
            both = w.at(base + word)
            return (self._float(let((both >> cast(high * 16, "uint32")) & u32(0xFFFF))),)
        return self.halves([w.at(base + word + i) for i in range(count // 2)])

    def halves(self, words: Sequence[Expr]) -> tuple[Expr, ...]:
        """The two 16-bit floats of each word."""
        return tuple(self._float(half) for both in words for half in (let(both & u32(0xFFFF)), let(both >> u32(16))))

    def _float(self, code: Expr) -> Expr:
        """A 16-bit float, given as the low bits of a word."""
        if self.format is Format.BF16:
            return bits(let(code << u32(16)), "float32")
        return half_to_float(code, self.half)

    def _wide(self, w: Span, block: Expr, k: Expr, first: Expr, count: int) -> Unit:
        base = let(block * ((self.inputs // 2 + 1) * (ROW_BYTES // WORD)) + first)
        scales = tuple(bits(w.at(base + i), "float32") for i in range(count))
        codes = []
        for i in range(count):
            word = bits(w.at(base + (k + 1) * OUT_BLOCK + i), "int32")
            codes.append(tuple(cast(let(v), "float32") for v in ((word << i32(16)) >> i32(16), word >> i32(16))))
        return Unit((let(k * 2), let(k * 2 + 1)), tuple(codes), scales)

    def _grouped(self, w: Span, block: Expr, k: Expr, first: Expr, count: int) -> Unit:
        steps = GROUP // self.depth
        group, step = split(k, steps)
        base = let((block * (self.inputs // GROUP) + group) * (block_bytes(self.format) // WORD))
        codes_at = let(base + codes_offset(self.format) // WORD + step * OUT_BLOCK + first)
        start = let(group * GROUP + step * 4)
        if self.format is Format.Q3:
            return self._threes(w, base, codes_at, start, first, count)
        words = [w.at(codes_at + i) for i in range(count)]
        if self.format is Format.Q8:
            codes = tuple(tuple(_signed_byte(word, j) for j in range(4)) for word in words)
            return Unit(tuple(let(start + j) for j in range(4)), codes, self._pairs(w, base, first, count))
        inputs = tuple(let(start + half * 16 + j) for half in range(2) for j in range(4))
        nibbles = [[_field(word, 8 * j + 4 * half, 4) for half in range(2) for j in range(4)] for word in words]
        if self.format is Format.MXFP4:
            codes = tuple(tuple(_small_float(code) for code in row) for row in nibbles)
            return Unit(inputs, codes, tuple(_power(code) for code in self._bytes(w, base, first, count)))
        codes = tuple(tuple(cast(code, "float32") for code in row) for row in nibbles)
        scales = self._pairs(w, base, first, count)
        if self.format is Format.Q4:
            return Unit(inputs, codes, scales, self._pairs(w, let(base + OUT_BLOCK // 2), first, count))
        return Unit(inputs, codes, scales, tuple(let(scale * f32(-Q4S_ZERO)) for scale in scales))

    def _threes(self, w: Span, base: Expr, codes_at: Expr, start: Expr, first: Expr, count: int) -> Unit:
        """A whole group of q3, whose last step is in the bits that the others leave."""
        codes = []
        for i in range(count):
            a, b, c = (w.at(codes_at + i + step * OUT_BLOCK) for step in range(3))
            values: dict[int, Expr] = {}
            for j in range(4):
                for step, word in enumerate((a, b, c)):
                    values[4 * step + j], values[16 + 4 * step + j] = _field(word, 8 * j, 3), _field(word, 8 * j + 3, 3)
                for place, word, high in ((12 + j, a, 6), (28 + j, c, 7)):
                    low = _field(word, 8 * j + 6, 2)
                    values[place] = let(low | let(_field(b, 8 * j + high, 1) << u32(2)))
            codes.append(tuple(cast(values[k], "float32") for k in range(GROUP)))
        scales = self._pairs(w, base, first, count)
        zeros = self._bytes(w, let(base + SCALE_BYTES // WORD), first, count)
        parts = f32(-1.0 / Q3_PARTS)
        minima = tuple(let(s * let(cast(z, "float32") * parts)) for s, z in zip(scales, zeros, strict=True))
        return Unit(tuple(let(start + k) for k in range(GROUP)), tuple(codes), scales, minima)

    def _bytes(self, w: Span, base: Expr, first: Expr, count: int) -> tuple[Expr, ...]:
        """Bytes of outputs, of which the first one's is in word `base`; count is 1, or a multiple of 4."""
        word, inside = split(first, WORD)
        if count == 1:
            return (let((w.at(base + word) >> cast(inside * 8, "uint32")) & u32(0xFF)),)
        words = [w.at(base + word + i) for i in range(count // WORD)]
        return tuple(_field(words[i // WORD], 8 * (i % WORD), 8) for i in range(count))


def half_to_float(code: Expr, native: bool) -> Expr:
    """The float32 of a finite float16 that is given as the low bits of a uint32."""
    if native:
        return cast(bits(cast(code, "uint16"), "float16"), "float32")
    magnitude = let(code & u32(0x7FFF))
    # Subnormals by multiplication: a device may flush those of float32, into which shifted bits would turn.
    normal = bits(let((magnitude << u32(13)) + u32(112 << 23)), "float32")
    small = let(cast(magnitude, "float32") * f32(2.0**-24))
    value = bits(select(magnitude < u32(0x400), small, normal), "uint32")
    return bits(let(value | let((code & u32(0x8000)) << u32(16))), "float32")


def _signed_byte(word: Expr, j: int) -> Expr:
    """The j-th int8 of a word as a float."""
    return cast(let((bits(word, "int32") << i32(24 - 8 * j)) >> i32(24)), "float32")


def _field(word: Expr, shift: int, width: int) -> Expr:
    """Some bits of a word."""
    shifted = word if shift == 0 else let(word >> u32(shift))
    return shifted if shift + width == 32 else let(shifted & u32((1 << width) - 1))


def _small_float(code: Expr) -> Expr:
    """The float32 of a float of four bits: sign, two bits of exponent, one of mantissa."""
    magnitude = let(code & u32(7))
    normal = bits(let((magnitude << u32(22)) + u32(126 << 23)), "float32")
    value = select(magnitude < u32(2), let(cast(magnitude, "float32") * f32(0.5)), normal)
    return select(code > u32(7), let(-value), value)


def _power(exponent: Expr) -> Expr:
    """2^(exponent - 127)."""
    return bits(let(exponent << u32(23)), "float32")


def dot(unit: Unit, output: int, x: Sequence[Expr], total: Expr | None, onto: Expr) -> Expr:
    """onto + the product of one output of a unit with the inputs x, whose sum is `total` where there are minima."""
    products = let(unit.codes[output][0] * x[0])
    for code, value in zip(unit.codes[output][1:], x[1:], strict=True):
        products = let(code * value + products)
    if unit.scales is None:
        return let(onto + products)
    scaled = let(products * unit.scales[output] + onto)
    if unit.minima is None or total is None:
        return scaled
    return let(unit.minima[output] * total + scaled)


def total_of(unit: Unit, x: Sequence[Expr]) -> Expr | None:
    """The sum of the inputs, if the unit has minima."""
    if unit.minima is None:
        return None
    total = x[0]
    for value in x[1:]:
        total = let(total + value)
    return total
