"""MXFP4: floats of four bits whose groups of 32 share a power of two (OCP Microscaling Formats, 2023).

A code is a sign, two bits of exponent and one of mantissa; the numbers are 0, 1/2, 1, 3/2, 2, 3, 4 and 6. The scale of
a group is 2^(e - 127) for a byte e. Kernels count halves, so that all numbers are integers, and 12 of them more, so
that none is negative: w = 2^(e - 128) * (CODE_HALVES[code] - ZERO_HALVES).

Owns the numbers; checkpoints hold them (gpt-oss), no scheme of ours rounds to them.
"""

from __future__ import annotations

import numpy as np

_POSITIVE = (0, 1, 2, 3, 4, 6, 8, 12)  # halves
ZERO_HALVES = 12
CODE_HALVES = (*(ZERO_HALVES + v for v in _POSITIVE), *(ZERO_HALVES - v for v in _POSITIVE))
BIAS = 128  # of the exponents of halves
LARGEST = 254  # 255 stands for no number

_BETWEEN = (np.array(_POSITIVE[:-1], np.float32) + np.array(_POSITIVE[1:], np.float32)) / 2


def halves(codes: np.ndarray) -> np.ndarray:
    """int8, what codes 0..15 stand for in halves of their group's scale."""
    return np.array(CODE_HALVES, np.int8)[codes] - np.int8(ZERO_HALVES)


def scales(exponents: np.ndarray) -> np.ndarray:
    """float32, the size of a half for exponents e; 0 for the least, 2^-128, which the kernels take for 0 as well."""
    powers = np.ldexp(np.float32(1), exponents.astype(np.int32) - BIAS).astype(np.float32)
    return np.where(exponents == 0, np.float32(0), powers)


def nearest(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [groups, 32] to codes and exponents (uint8): the least scale under which the largest is not clipped."""
    largest = np.abs(groups).max(axis=1) / np.float32(ZERO_HALVES)
    _, exponent = np.frexp(largest)
    exponent = exponent - (largest == np.ldexp(np.float32(0.5), exponent))  # a power of two is its own scale
    exponents = np.where(largest > 0, np.clip(exponent + BIAS, 1, LARGEST), 0).astype(np.uint8)
    steps = scales(exponents)[:, None]
    magnitudes = np.divide(np.abs(groups), steps, out=np.zeros_like(groups), where=steps > 0)
    codes = np.searchsorted(_BETWEEN, magnitudes).astype(np.uint8)
    return codes | np.where((groups < 0) & (codes > 0), np.uint8(8), np.uint8(0)), exponents
