"""q16: integers of 14 bits with a scale for each output, for models whose results shall be those of their floats.

Owns the rounding and the layout of the format; `layouts.py` says how packed matrices look in general.

    q16   uint8 [Nb, K / 2 + 1, 64]   row 0: 16 float32 scales; row p + 1: 16 outputs x 2 int16, of inputs 2p and 2p + 1

w = scale * q with |q| <= LIMIT. Products of weights and activations of that size, 32 of each, add up within 32 bits:
32 * LIMIT^2 < 2^31.
"""

from __future__ import annotations

import numpy as np

from cupola.errors import ModelError

LIMIT = 8191
OUTPUTS = 16  # of a block
ROW_BYTES = 64


def packed_shape_q16(shape: tuple[int, int]) -> tuple[int, int, int]:
    """Shape of the packed array of an [N, K] matrix with an even K."""
    rows, inputs = shape
    return -(-rows // OUTPUTS), inputs // 2 + 1, ROW_BYTES


def pack_q16(matrix: np.ndarray) -> np.ndarray:
    """Rounds and packs a float32 [N, K] matrix. ModelError: a value is not finite."""
    rows, inputs = matrix.shape
    out = np.zeros(packed_shape_q16((rows, inputs)), np.uint8)
    padded = np.zeros((len(out) * OUTPUTS, inputs), np.float32)
    padded[:rows] = matrix
    largest = np.abs(padded).max(axis=1)
    if not np.isfinite(largest).all():
        raise ModelError("the matrix holds values that are not finite")
    scale = (largest / LIMIT).astype(np.float32)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.clip(np.rint(padded * inverse[:, None]), -LIMIT, LIMIT).astype(np.int16)
    out[:, 0] = scale.view(np.uint8).reshape(-1, ROW_BYTES)
    pairs = codes.reshape(-1, OUTPUTS, inputs // 2, 2).transpose(0, 2, 1, 3)
    out[:, 1:] = np.ascontiguousarray(pairs).view(np.uint8).reshape(-1, inputs // 2, ROW_BYTES)
    return out


def unpack_q16(packed: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The float32 [N, K] matrix that a packed array stands for."""
    rows, inputs = shape
    scale = np.ascontiguousarray(packed[:, 0]).view(np.float32).reshape(-1)
    pairs = np.ascontiguousarray(packed[:, 1:]).view(np.int16).reshape(-1, inputs // 2, OUTPUTS, 2)
    codes = np.ascontiguousarray(pairs.transpose(0, 2, 1, 3)).reshape(-1, inputs)
    return (codes.astype(np.float32) * scale[:, None])[:rows]
