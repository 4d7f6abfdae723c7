"""Integers with scales and zero points, as other tools write them, in the formats that are ours.

    w = scale * (code - zero)        one scale and one zero point for a group of inputs

Owns that arithmetic: which of our formats keeps such integers, and what is rounded on the way. Ours have a float16
scale for 32 inputs, so that a longer group's scale is repeated. What is kept how:

    codes of 2 bits                  q4s, exactly: code - zero + 8
    codes of 4 bits, all zeros 8     q4s, exactly
    codes of 4 bits                  q4; the minimum, -scale * zero, is rounded to float16: by 2^-11 of itself at most,
                                     that is by less than 0.0074 steps (zero <= 15), the same for the whole group
    codes of 8 bits                  q8, exactly, where code - zero fits 8 bits (always, if zero is 128); a group of 32
                                     where it does not is rounded to 8 bits anew

Scales that are not float16 in the file are rounded to it: by 2^-11 of themselves at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupola.errors import ModelError
from cupola.quantize.formats import GROUP, Q4S_ZERO, Format, Quantized
from cupola.quantize.rounding import Q4_LIMIT, quantize

_INT8 = np.iinfo(np.int8)


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of a matrix [N, K].

    Args:
        codes: int16 [N, K].
        scale: float32 [N, G].
        zero: int16 [N, G].
        groups: for each input the group that it belongs to; None: K / G neighbours each.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    groups: np.ndarray | None = None

    def floats(self) -> np.ndarray:
        """float32 [N, K], rounded nowhere but in the product."""
        if self.groups is not None:
            return (self.codes - self.zero[:, self.groups]).astype(np.float32) * self.scale[:, self.groups]
        parts = (*self.scale.shape, -1)
        centred = self.codes.reshape(parts) - self.zero[..., None]
        return (centred.astype(np.float32) * self.scale[..., None]).reshape(self.codes.shape)

    def quantized(self, fmt: Format) -> Quantized:
        """The integers in `fmt` (Q4, Q4S or Q8); the length of a group must be a multiple of 32.

        Raises:
            ModelError: a scale is beyond the range of float16, or codes do not fit the format.
        """
        repeats = self.codes.shape[1] // self.scale.shape[1] // GROUP
        with np.errstate(over="ignore"):
            scale = self.scale.astype(np.float16)
            minimum = (-self.zero * scale.astype(np.float32)).astype(np.float16) if fmt is Format.Q4 else None
        if not np.isfinite(scale).all() or not (minimum is None or np.isfinite(minimum).all()):
            raise ModelError("its scales or minima are beyond the range of float16")
        scale = np.repeat(scale, repeats, axis=1)
        if minimum is not None:
            return Quantized(fmt, self.codes.astype(np.uint8), scale, np.repeat(minimum, repeats, axis=1))
        centred = self.codes.reshape(*self.scale.shape, -1) - self.zero[..., None]
        if fmt is Format.Q4S:
            codes = (centred + Q4S_ZERO).reshape(self.codes.shape)
            if codes.min(initial=0) < 0 or codes.max(initial=0) > Q4_LIMIT:
                raise ModelError("it is said to be symmetric, but has other zero points than the middle")
            return Quantized(fmt, codes.astype(np.uint8), scale)
        return self._eight_bits(centred.reshape(len(self.codes), -1, GROUP), scale)

    def _eight_bits(self, centred: np.ndarray, scale: np.ndarray) -> Quantized:
        wide = (centred.min(axis=2) < _INT8.min) | (centred.max(axis=2) > _INT8.max)
        values = centred.astype(np.int8)
        if wide.any():
            again = quantize(centred[wide].astype(np.float32) * scale[wide].astype(np.float32)[:, None], Format.Q8)
            values[wide] = again.values
            scale[wide] = again.scale[:, 0]
        return Quantized(Format.Q8, values.reshape(self.codes.shape), scale)


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """The codes in 32-bit words, the lowest bits first: int32 [..., W] to int16 [..., W * 32 / bits].

    `bits` is 2, 4 or 8.
    """
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = np.ascontiguousarray(words).view(np.uint32)[..., None] >> shifts & np.uint32((1 << bits) - 1)
    return codes.astype(np.int16).reshape(*words.shape[:-1], -1)
