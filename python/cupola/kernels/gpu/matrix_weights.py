"""Packed weights as what matrix units multiply: from the bytes of one block and group in shared memory to fragments.

Weights are the rows of A, so that one tile of A is one block of 16 outputs and 16 inputs. They stay packed in shared
memory: what a thread needs of a block, some words, is unpacked in its registers. Row g of A is output 2 g and row g + 8
output 2 g + 1 (two neighbouring words of most formats, one of their scales); of 16-bit floats, which are loaded as
matrices, outputs g and g + 8.

A group of 32 inputs has two halves, and a half two parts of eight; lane 4 g + t has inputs 2 t and 2 t + 1 of a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cupola.kernels.emit import Expr, Span, bits, cast, f32, i32, let, select, shuffle
from cupola.kernels.gpu.emit import split, u32
from cupola.kernels.gpu.matrix_unit import CHUNK, Instructions
from cupola.kernels.gpu.weights import Packed, half_to_float
from cupola.quantize.formats import GROUP, Q3_PARTS, Q4S_ZERO, Format
from cupola.quantize.layouts import OUT_BLOCK, WORD, block_bytes, codes_offset

MAGIC = 0x64006400  # two float16 of 1024, in whose lowest bits integers below 1024 may be put
STEP = OUT_BLOCK  # words of one step of a block's codes: four inputs of each output


@dataclass(frozen=True)
class Lane:
    """A thread's place in its warp, 4 g + t."""

    lane: Expr
    g: Expr
    t: Expr

    @classmethod
    def of(cls, lane: Expr) -> Lane:
        return cls(lane, *split(lane, 4))


@dataclass(frozen=True)
class Decoder:
    """What all formats know.

    Args:
        dtype: of the fragments.
    """

    matrix: Packed
    dtype: str
    instructions: Instructions
    lane: Lane

    def floats(self, word: Expr) -> tuple[Expr, Expr]:
        """Both float16 of a word as float32."""
        halves = (let(word & u32(0xFFFF)), let(word >> u32(16)))
        return half_to_float(halves[0], self.matrix.half), half_to_float(halves[1], self.matrix.half)


class Fragments(Protocol):
    """How one format becomes fragments of A.

    Args:
        raw: words that a thread reads of a block at a time.
        each_half: these are of a half; else of a whole group.
        whole: they are fragments already.
        paired: row g is output 2 g, not g.
    """

    raw: int
    each_half: bool
    whole: bool
    paired: bool

    def load(self, raw: Span, at: int, memory: Span, base: Expr, half: int) -> None:
        """Reads a thread's words of the block that begins at word `base`."""

    def unpack(self, raw: Span, at: int, half: int, /) -> list[Expr]:
        """The four words of one fragment."""


def words_of(matrix: Packed) -> int:
    """Words of one block and group."""
    fmt = matrix.format
    if fmt.grouped:
        return block_bytes(fmt) // WORD
    return OUT_BLOCK * GROUP // matrix.in_word


def supported(matrix: Packed) -> bool:
    """Whether blocks and groups lie one after the other, as everything here assumes."""
    return matrix.format is not Format.Q16 and matrix.inputs % GROUP == 0


def chunk_place(matrix: Packed, chunk: Expr) -> Expr:
    """Where a chunk of a block lies in shared memory: such that eight rows of a matrix fall into different banks."""
    if matrix.in_word == 1:
        return chunk
    return let(chunk ^ ((chunk >> i32(3)) & i32(1)))


def fragments(matrix: Packed, dtype: str, instructions: Instructions, lane: Lane) -> Fragments:
    decoder = Decoder(matrix, dtype, instructions, lane)
    if matrix.format in (Format.F16, Format.BF16):
        return _Halves(decoder)
    if matrix.format is Format.F32:
        return _Floats(decoder)
    return _Codes(decoder)


class _Halves:
    """16-bit floats [32 inputs, 16 outputs]: matrices of 8 inputs and 8 outputs, transposed on their way."""

    raw, each_half, paired = 4, True, False

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.whole = (decoder.matrix.format is Format.BF16) == (decoder.dtype == "bfloat16")
        matrix, row = split(decoder.lane.lane, 8)
        chunk = let((((matrix >> i32(1)) << i32(3)) + row) * 2 + (matrix & i32(1)))
        self._line = let(chunk_place(decoder.matrix, chunk) * CHUNK)

    def load(self, raw: Span, at: int, memory: Span, base: Expr, half: int) -> None:
        line = let(base + self._line + half * (16 * OUT_BLOCK // 2))
        self._decoder.instructions.load(raw, at, memory, line, transposed=True)

    def unpack(self, raw: Span, at: int, _half: int, /) -> list[Expr]:
        words = [raw.at(at + i) for i in range(4)]
        return words if self.whole else [self._decoder.instructions.pair(*self._floats(word)) for word in words]

    def _floats(self, word: Expr) -> tuple[Expr, Expr]:
        if self._decoder.matrix.format is Format.F16:
            return self._decoder.floats(word)
        return bits(let(word << u32(16)), "float32"), bits(let(word & u32(0xFFFF0000)), "float32")


class _Floats:
    """float32 [32 inputs, 16 outputs]."""

    raw, each_half, whole, paired = 8, True, False, True

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._first = let(decoder.lane.t * (2 * OUT_BLOCK) + decoder.lane.g * 2)

    def load(self, raw: Span, at: int, memory: Span, base: Expr, half: int) -> None:
        for part in range(2):
            for i in range(2):
                line = let(base + self._first + (half * 16 + part * 8 + i) * OUT_BLOCK)
                for output, word in enumerate(_two(memory, line)):
                    raw.put(at + part * 4 + output * 2 + i, word)

    def unpack(self, raw: Span, at: int, _half: int, /) -> list[Expr]:
        values = [bits(raw.at(at + i), "float32") for i in range(8)]
        return [self._decoder.instructions.pair(values[2 * i], values[2 * i + 1]) for i in range(4)]


class _Codes:
    """Formats of groups: integers or small floats, with a scale, perhaps a minimum, for each output and group.

    A word of codes has four inputs of an output, of which a thread has two; and two of another word, two steps further.
    They are joined in one word, those of a part in every other byte.
    """

    whole, paired = False, True

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._format = decoder, decoder.matrix.format
        self.each_half = self._format is Format.Q8
        self._codes = 6 if self._format is Format.Q3 else 4
        self._has_minima = self._format in (Format.Q4, Format.Q3)
        self.raw = self._codes + (2 if self._has_minima else 1)
        g, t = decoder.lane.g, decoder.lane.t
        self._upper = let(t > i32(1))
        self._joining = let(u32(0x5140) + cast(let(t & i32(1)), "uint32") * u32(0x2222))
        self._shift = let(cast(let(g & i32(1)), "uint32") * u32(16))  # of the bytes of outputs 2 g and 2 g + 1

    def load(self, raw: Span, at: int, memory: Span, base: Expr, half: int) -> None:
        g, t = self._decoder.lane.g, self._decoder.lane.t
        first = let(base + g * 2 + codes_offset(self._format) // WORD)
        if self._format is Format.Q3:
            lines = [let(first + step * STEP) for step in range(3)]
        else:
            mine = let(first + (t >> i32(1)) * STEP)
            lines = [let(mine + (step + (4 * half if self.each_half else 0)) * STEP) for step in (0, 2)]
        for i, line in enumerate(lines):
            for output, word in enumerate(_two(memory, line)):
                raw.put(at + 2 * i + output, word)
        by_byte = let(g >> i32(1))
        raw.put(at + self._codes, memory.at(base + (by_byte if self._format is Format.MXFP4 else g)))
        if self._has_minima:
            raw.put(
                at + self._codes + 1, memory.at(base + OUT_BLOCK // 2 + (g if self._format is Format.Q4 else by_byte))
            )

    def unpack(self, raw: Span, at: int, half: int) -> list[Expr]:
        found: dict[int, Expr] = {}
        weights = self._halves(raw, at) if self._decoder.dtype == "float16" else self._floats(raw, at)
        for output in range(2):
            if self.each_half or half == 0:
                raw.put(at + output, self._joined(raw, at, output))
            for part, code in enumerate(self._parts(raw.at(at + output), half)):
                found[part * 2 + output] = weights(output, code)
        return [found[i] for i in range(4)]

    def _joined(self, raw: Span, at: int, output: int) -> Expr:
        words = [raw.at(at + 2 * i + output) for i in range(self._codes // 2)]
        if self._format is Format.Q3:
            words = self._nibbles(*words)
        joined = self._decoder.instructions.permute(words[0], words[1], self._joining)
        return let(joined ^ u32(0x80808080)) if self._format is Format.Q8 else joined

    def _nibbles(self, a: Expr, b: Expr, c: Expr) -> list[Expr]:
        """The two steps of q3 that this lane needs, as words of q4 (`quantize/layouts.py`, `_halves_q3`)."""

        def apart(word: Expr) -> Expr:
            return let(let(word & u32(0x07070707)) | let(let(word & u32(0x38383838)) << u32(1)))

        low = let(let((a >> u32(6)) & u32(0x03030303)) | let((b >> u32(4)) & u32(0x04040404)))
        high = let(let((c >> u32(6)) & u32(0x03030303)) | let((b >> u32(5)) & u32(0x04040404)))
        last = let(low | let(high << u32(4)))
        return [select(self._upper, apart(b), apart(a)), select(self._upper, last, apart(c))]

    def _parts(self, joined: Expr, half: int) -> list[_Code]:
        """The codes of both parts of a half."""
        if self._format is Format.Q8:
            words = [self._decoder.instructions.permute(joined, u32(MAGIC), u32(code)) for code in (0x5250, 0x5351)]
            return [_Code(word, 1.0, 1024.0 + 128.0) for word in words]
        if self._format is Format.MXFP4:
            return [_Code(_small_floats(joined, 2 * part + half), 2.0**14, 0.0) for part in range(2)]
        zero = Q4S_ZERO if self._format is Format.Q4S else 0
        mask, factor = (0x000F000F, 1.0) if half == 0 else (0x00F000F0, 1 / 16)
        overlay = self._decoder.instructions.overlay
        words = [overlay(word, u32(mask), u32(MAGIC)) for word in (joined, let(joined >> u32(8)))]
        return [_Code(word, factor, 1024.0 * factor + zero) for word in words]

    def _halves(self, raw: Span, at: int) -> Weights:
        """In float16: the code is exact, and so is what q3 takes away from it; the weight is rounded once."""
        do = self._decoder.instructions
        scales, added = raw.at(at + self._codes), None
        if self._format is Format.MXFP4:
            scales = do.pair(*self._scales(raw, at))
        elif self._format is Format.Q3:
            added = do.pair(*self._zeros(raw, at))
        elif self._format is Format.Q4:
            added = raw.at(at + self._codes + 1)

        def weights(output: int, code: _Code) -> Expr:
            both = u32(0x3232 if output else 0x1010)
            value = do.fma(code.word, _twice(code.factor), _twice(-code.offset))
            scale = do.permute(scales, scales, both)
            if added is None:
                return do.fma(value, scale, u32(0))
            more = do.permute(added, added, both)
            if self._format is Format.Q3:
                return do.fma(do.fma(value, _twice(1.0), more), scale, u32(0))
            return do.fma(value, scale, more)

        return weights

    def _floats(self, raw: Span, at: int) -> Weights:
        """In float32, rounded at the end."""
        scales, minima = self._scales(raw, at), self._minima(raw, at) if self._has_minima else (f32(0.0), f32(0.0))

        def weights(output: int, code: _Code) -> Expr:
            scale = let(scales[output] * f32(code.factor))
            start = let(scales[output] * f32(-code.offset) + minima[output])
            low, high = self._decoder.floats(code.word)
            return self._decoder.instructions.pair(let(low * scale + start), let(high * scale + start))

        return weights

    def _scales(self, raw: Span, at: int) -> tuple[Expr, Expr]:
        word = raw.at(at + self._codes)
        if self._format is not Format.MXFP4:
            return self._decoder.floats(word)
        low, high = self._bytes(word)
        return bits(let(low << u32(23)), "float32"), bits(let(high << u32(23)), "float32")

    def _minima(self, raw: Span, at: int) -> tuple[Expr, Expr]:
        word = raw.at(at + self._codes + 1)
        if self._format is Format.Q4:
            return self._decoder.floats(word)
        low, high = (let(zero * scale) for zero, scale in zip(self._zeros(raw, at), self._scales(raw, at), strict=True))
        return low, high

    def _zeros(self, raw: Span, at: int) -> tuple[Expr, Expr]:
        """What q3 adds to its codes."""
        low, high = (
            let(cast(byte, "float32") * f32(-1.0 / Q3_PARTS)) for byte in self._bytes(raw.at(at + self._codes + 1))
        )
        return low, high

    def _bytes(self, word: Expr) -> tuple[Expr, Expr]:
        """Those of outputs 2 g and 2 g + 1."""
        both = let(word >> self._shift)
        return let(both & u32(0xFF)), let((both >> u32(8)) & u32(0xFF))


@dataclass(frozen=True)
class _Code:
    """Two codes as a word of float16: each is half * factor - offset."""

    word: Expr
    factor: float
    offset: float


Weights = Callable[[int, _Code], Expr]  # (output, its codes): a word of weights


def _two(memory: Span, at: Expr) -> tuple[Expr, Expr]:
    """Two neighbouring words, the first at an even place."""
    both = memory.load(at, 2)
    return shuffle(both, [0]), shuffle(both, [1])


def _small_floats(word: Expr, nibble: int) -> Expr:
    """The 4-bit floats in one nibble of either half of a word, as float16 times 2^-14."""
    top = let(word << u32(12 - 4 * nibble)) if nibble < 3 else word
    return let(let(top & u32(0x80008000)) | let(let(top >> u32(3)) & u32(0x0E000E00)))


def _twice(value: float) -> Expr:
    """A word of two equal float16."""
    return u32(int(np.float16(value).view(np.uint16)) * 0x10001)
