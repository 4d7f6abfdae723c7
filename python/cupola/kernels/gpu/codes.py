"""Packed weights as the matrix unit wants them: words of two 16-bit floats, made out of codes by a few bit operations.

A small integer put into the low bits of a float's mantissa is that integer plus a power of two: no conversion is
needed, and the power is subtracted once, from a sum. Bytes and nibbles of both halves of a word are handled together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cupola.kernels.emit import Expr, let
from cupola.kernels.gpu.emit import u32
from cupola.kernels.gpu.matrix_unit import Instructions
from cupola.quantize.formats import Q4S_ZERO, Format

Words = tuple[Expr, Expr]  # four inputs of one output


@dataclass(frozen=True)
class Codes:
    """How a group of 32 inputs is unpacked: in two halves, each with four inputs of every word.

    A half's floats are gain * code + offset.

    Args:
        words: of one output and four neighbouring inputs of either half; of one word both, or each its own.
        unpack: (instructions, word, half) -> the four floats of a half: of inputs 0 and 2, then of 1 and 3.
    """

    words: int
    gains: tuple[float, float]
    offsets: tuple[float, float]
    unpack: Callable[[Instructions, Expr, int], Words]

    @property
    def parts(self) -> int:
        """Sums that have to be kept apart: halves of different gains."""
        return 1 if self.gains[0] == self.gains[1] else 2


def _pairs(tools: Instructions, word: Expr, mask: int, magic: int) -> Words:
    """The bits of a mask in both halves of a word, and of the word moved by a byte."""
    first, second = (tools.overlay(part, u32(mask), u32(magic)) for part in (word, let(word >> u32(8))))
    return first, second


def _nibbles_float16(tools: Instructions, word: Expr, half: int) -> Words:
    """1024 + code, and 1024 + 16 * code."""
    return _pairs(tools, word, (0x000F000F, 0x00F000F0)[half], 0x64006400)


def _nibbles_bfloat16(tools: Instructions, word: Expr, half: int) -> Words:
    """128 + code: the mantissa has seven bits."""
    return _pairs(tools, let(word >> u32(4)) if half else word, 0x000F000F, 0x43004300)


def _bytes_float16(tools: Instructions, word: Expr, _: int) -> Words:
    """1024 + (code + 128)."""
    return _pairs(tools, let(word ^ u32(0x80808080)), 0x00FF00FF, 0x64006400)


def _small_floats(_: Instructions, word: Expr, half: int) -> Words:
    """2^-14 * float: sign, exponent and mantissa go to where a float16 has them, which has subnormals likewise."""

    def pair(sign: int, magnitude: int) -> Expr:
        """Shifts to the left, of which negative ones are to the right."""
        moved = [let(word << u32(by)) if by >= 0 else let(word >> u32(-by)) for by in (sign, magnitude)]
        return let(let(moved[0] & u32(0x80008000)) | let(moved[1] & u32(0x0E000E00)))

    first, second = ((12, 9), (4, 1)) if half == 0 else ((8, 5), (0, -3))
    return pair(*first), pair(*second)


def _nibbles(zero: int, dtype: str) -> Codes:
    if dtype == "float16":
        return Codes(1, (1.0, 16.0), (1024.0 + zero, 1024.0 + 16 * zero), _nibbles_float16)
    return Codes(1, (1.0, 1.0), (128.0 + zero, 128.0 + zero), _nibbles_bfloat16)


_CODES: Mapping[tuple[Format, str], Codes] = MappingProxyType(
    {
        **{(Format.Q4, dtype): _nibbles(0, dtype) for dtype in ("float16", "bfloat16")},
        **{(Format.Q4S, dtype): _nibbles(Q4S_ZERO, dtype) for dtype in ("float16", "bfloat16")},
        (Format.Q8, "float16"): Codes(2, (1.0, 1.0), (1024.0 + 128, 1024.0 + 128), _bytes_float16),
        (Format.MXFP4, "float16"): Codes(1, (2.0**-14, 2.0**-14), (0.0, 0.0), _small_floats),
    }
)


def codes_of(fmt: Format, dtype: str) -> Codes | None:
    """How codes become floats of `dtype`; None: not in a few operations."""
    return _CODES.get((fmt, dtype))
