"""Numeric formats of weights, and how a scheme chooses among them.

A *format* says how one matrix is stored (`Format`); a *scheme* names a format for each role of a matrix in a model.
A matrix that a checkpoint already holds quantized keeps its own integers whatever the scheme (except `f32`), because a
second quantization only loses quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

GROUP = 32  # inputs that share one scale (and one minimum)
Q4S_ZERO = 8  # the code that stands for 0 where there is no minimum


class Format(str, Enum):
    """How one matrix is stored."""

    F32 = "f32"
    F16 = "f16"  # IEEE 754 half precision
    BF16 = "bf16"  # the upper half of a float32
    Q8 = "q8"  # int8, w = scale * q
    Q4 = "q4"  # 4 bits unsigned, w = scale * q + minimum
    Q16 = "q16"  # int16 of 14 bits, w = scale * q with a scale for each output; see `wide.py`
    Q4S = "q4s"  # symmetric: 4 bits unsigned, w = scale * (q - 8)

    @property
    def grouped(self) -> bool:
        """True for integers in groups of `GROUP` inputs, which need activations of the same kind; else floats."""
        return self in (Format.Q8, Format.Q4, Format.Q4S)

    @property
    def integer(self) -> bool:
        """True for integers of any kind; their inputs are a multiple of `GROUP`."""
        return self.grouped or self is Format.Q16


@dataclass(frozen=True)
class Quantized:
    """A matrix [N, K] in groups of 32 along K, before packing.

    Args:
        format: Q8, Q4 or Q4S.
        values: int8 [N, K] for Q8 (-128..127); uint8 [N, K] for Q4 and Q4S (0..15).
        scale: float16 [N, K/32].
        minimum: float16 [N, K/32] for Q4, else None.
    """

    format: Format
    values: np.ndarray
    scale: np.ndarray
    minimum: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        n, k = self.values.shape
        return int(n), int(k)
