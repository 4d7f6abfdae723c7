"""Numeric formats of weights, and how a scheme chooses among them.

A *format* says how one matrix is stored (`Format`); a *scheme* names a format for each role of a matrix in a model.
A matrix that a checkpoint already holds quantized keeps its own integers whatever the scheme (except `f32`), because a
second quantization only loses quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

GROUP = 32  # inputs that share one scale (and one minimum)
Q4S_ZERO = 8  # the code that stands for 0 where there is no minimum
Q3_PARTS = 32  # of a step, in which q3 says where 0 is


class Format(str, Enum):
    """How one matrix is stored."""

    F32 = "f32"
    F16 = "f16"  # IEEE 754 half precision
    BF16 = "bf16"  # the upper half of a float32
    Q8 = "q8"  # int8, w = scale * q
    Q4 = "q4"  # 4 bits unsigned, w = scale * q + minimum
    Q16 = "q16"  # int16 of 14 bits, w = scale * q with a scale for each output; see `wide.py`
    Q4S = "q4s"  # symmetric: 4 bits unsigned, w = scale * (q - 8)
    Q3 = "q3"  # 3 bits unsigned, w = scale * (q - zero / 32)
    MXFP4 = "mxfp4"  # floats of 4 bits and powers of two as scales, kept where a checkpoint has them; see `mxfp4.py`

    @property
    def grouped(self) -> bool:
        """True for integers in groups of `GROUP` inputs, which need activations of the same kind; else floats."""
        return self in (Format.Q8, Format.Q4, Format.Q4S, Format.Q3, Format.MXFP4)

    @property
    def integer(self) -> bool:
        """True for integers of any kind; their inputs are a multiple of `GROUP`."""
        return self.grouped or self is Format.Q16


@dataclass(frozen=True)
class Quantized:
    """A matrix [N, K] in groups of 32 along K, before packing.

    Args:
        format: Q8, Q4, Q4S, Q3 or MXFP4.
        values: int8 [N, K] for Q8 (-128..127); uint8 [N, K] for Q4, Q4S and MXFP4 (0..15) and for Q3 (0..7).
        scale: float16 [N, K/32]; uint8 for MXFP4, the exponents.
        minimum: float16 [N, K/32] for Q4, else None.
        zero: uint8 [N, K/32] for Q3, the code of 0 in 32nds; else None.
    """

    format: Format
    values: np.ndarray
    scale: np.ndarray
    minimum: np.ndarray | None = None
    zero: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        n, k = self.values.shape
        return int(n), int(k)

    def take(self, rows: np.ndarray) -> Quantized:
        """The matrix of these rows."""
        return Quantized(
            self.format,
            self.values[rows],
            self.scale[rows],
            None if self.minimum is None else self.minimum[rows],
            None if self.zero is None else self.zero[rows],
        )


def stacked(parts: Sequence[Quantized]) -> Quantized:
    """Matrices of one format and width, one below the other."""
    if len(parts) == 1:
        return parts[0]
    minima = [part.minimum for part in parts if part.minimum is not None]
    zeros = [part.zero for part in parts if part.zero is not None]
    return Quantized(
        parts[0].format,
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.scale for part in parts]),
        np.concatenate(minima) if minima else None,
        np.concatenate(zeros) if zeros else None,
    )
