"""From float matrices to groups of 32 with a scale, and back.

Owns the arithmetic of quantization: how scale, minimum and integers are chosen for a group. It works on `Quantized`
matrices in row order and knows nothing of packed layouts or files.

The scale (and minimum) of a group is rounded to float16 first and the integers are chosen for the rounded value, so
that the rounding of the scale costs nothing beyond the half step of the integers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cupola.errors import ModelError
from cupola.quantize import mxfp4
from cupola.quantize.formats import GROUP, Q3_PARTS, Q4S_ZERO, Format, Quantized
from cupola.quantize.search import Q3_GRID, Q4_GRID, inverse, nearest, search, zeros_of

Q8_LIMIT = 127
Q5_LIMIT = 31
Q4_LIMIT = 15

_MOST_PARTS = 2 * Q8_LIMIT // Q5_LIMIT  # q8 steps in a step of 5 bits: the codes of all have to fit
_LEAST_IMPORTANCE = 1e-6  # of the largest, so that inputs which were never seen are rounded sensibly too
_CHUNK_GROUPS = 4096  # groups worked on at once: their temporaries (half a MiB each) stay in the cache


def quantize(matrix: np.ndarray, fmt: Format, importance: np.ndarray | None = None) -> Quantized:
    """Rounds float32 [N, K] (K a multiple of 32) to a group format.

    Args:
        importance: float32 [K], what a squared error of each input's weights costs, such as the mean square of that
            input; None: all the same. Formats of one scale for the largest weight (q8, q4s) have no choice to make.

    Raises:
        ModelError: the matrix holds values that are not finite, or too large for a float16 scale.
    """
    rows, inputs = matrix.shape
    if inputs % GROUP:
        raise ModelError(f"a matrix with {inputs} inputs cannot be quantized in groups of {GROUP}")
    groups = np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1, GROUP)
    if fmt is Format.MXFP4:
        return _round_mxfp4(groups, rows)
    values = np.empty(groups.shape, np.int8 if fmt is Format.Q8 else np.uint8)
    scale = np.empty(len(groups), np.float16)
    minimum = np.empty(len(groups), np.float32) if fmt in (Format.Q4, Format.Q3) else None
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(groups), _CHUNK_GROUPS):
            part = slice(start, start + _CHUNK_GROUPS)
            if minimum is not None:
                costs = None if importance is None else _costs(importance, start, len(groups[part]))
                values[part], scale[part], minimum[part] = _round_by_search(groups[part], costs, fmt)
            else:
                values[part], scale[part] = (_round_q8 if fmt is Format.Q8 else _round_q4s)(groups[part])
    if not np.isfinite(scale).all() or not (minimum is None or np.isfinite(minimum).all()):
        raise ModelError("the matrix holds values that are not finite, or too large for a float16 scale")
    per_row = (rows, inputs // GROUP)
    shaped = Quantized(fmt, values.reshape(rows, inputs), scale.reshape(per_row))
    if minimum is None:
        return shaped
    minimum = minimum.reshape(per_row)
    if fmt is Format.Q3:
        return replace(shaped, zero=zeros_of(shaped.scale, minimum))
    return replace(shaped, minimum=minimum.astype(np.float16))


def _round_mxfp4(groups: np.ndarray, rows: int) -> Quantized:
    if not np.isfinite(groups).all():
        raise ModelError("the matrix holds values that are not finite")
    codes, exponents = mxfp4.nearest(groups)
    return Quantized(Format.MXFP4, codes.reshape(rows, -1), exponents.reshape(rows, -1))


def _costs(importance: np.ndarray, start: int, count: int) -> np.ndarray:
    """The importance of groups [start, start + count) of a matrix, row after row: float32 [32, count]."""
    least = max(float(importance.max()) * _LEAST_IMPORTANCE, float(np.finfo(np.float32).tiny))
    of_row = np.maximum(importance, np.float32(least)).astype(np.float32, copy=False).reshape(-1, GROUP)
    return np.ascontiguousarray(of_row[np.arange(start, start + count) % len(of_row)].T)


def _round_by_search(
    groups: np.ndarray, costs: np.ndarray | None, fmt: Format
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Affine: a scale and a minimum; see `search`."""
    grid = Q3_GRID if fmt is Format.Q3 else Q4_GRID
    columns = np.ascontiguousarray(groups.T)
    scale, minimum = search(columns, costs, grid)
    return nearest(columns, scale, minimum, grid.levels).T.astype(np.uint8), scale, minimum


def requantize(matrix: Quantized, fmt: Format, importance: np.ndarray | None = None) -> Quantized:
    """The matrix in another group format; rounded anew, except that q8 and q4 hold whatever q4s does, and q8 mxfp4.

    `importance` as in `quantize`.
    """
    if matrix.format is fmt:
        return matrix
    if matrix.format is Format.Q4S and fmt is Format.Q8:
        return Quantized(fmt, matrix.values.astype(np.int8) - np.int8(Q4S_ZERO), matrix.scale)
    if matrix.format is Format.Q4S and fmt is Format.Q4:
        with np.errstate(over="ignore"):
            minimum = matrix.scale * np.float16(-Q4S_ZERO)
        if np.isfinite(minimum).all():
            return Quantized(fmt, matrix.values, matrix.scale, minimum)
    if matrix.format is Format.MXFP4 and fmt is Format.Q8:
        scale = mxfp4.scales(matrix.scale)
        with np.errstate(over="ignore"):
            narrow = scale.astype(np.float16)
        if (narrow == scale).all():
            return Quantized(fmt, mxfp4.halves(matrix.values), narrow)
    return quantize(dequantize(matrix), fmt, importance)


def dequantize(quantized: Quantized) -> np.ndarray:
    """The float32 [N, K] that a quantized matrix stands for, as kernels compute it."""
    rows, inputs = quantized.shape
    if quantized.format is Format.MXFP4:
        wide = mxfp4.halves(quantized.values).reshape(rows, -1, GROUP).astype(np.float32)
        return (wide * mxfp4.scales(quantized.scale)[..., None]).reshape(rows, inputs)
    result = quantized.values.reshape(rows, -1, GROUP).astype(np.float32)
    if quantized.format is Format.Q4S:
        result -= Q4S_ZERO
    elif quantized.zero is not None:
        result -= (quantized.zero.astype(np.float32) / Q3_PARTS)[..., None]
    result *= quantized.scale.astype(np.float32)[..., None]
    if quantized.minimum is not None:
        result += quantized.minimum.astype(np.float32)[..., None]
    return result.reshape(rows, inputs)


def without_minimum(codes: np.ndarray, scale: np.ndarray, minimum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups `scale * q + minimum` of 5-bit codes as q8, which has no minimum.

    Where a group's step is a whole number of q8's steps, all that is rounded is the minimum, which is the same for the
    whole group; among the numbers for which the codes fit 8 bits, one usually comes close. Other groups, such as those
    of one value, are rounded one by one.

    Args:
        codes: uint8 [groups, 32], 0..31.
        scale, minimum: float32 [groups].

    Returns:
        int8 [groups, 32] and float32 [groups].
    """
    safe = np.where(scale > 0, scale, 1)
    parts, offset, error = np.zeros_like(scale), np.zeros_like(scale), np.full_like(scale, np.inf)
    for part in range(1, _MOST_PARTS + 1):
        shift = np.rint(minimum * (part / safe))
        miss = np.abs(minimum - shift * (safe / part))
        better = (shift >= -Q8_LIMIT) & (shift + Q5_LIMIT * part <= Q8_LIMIT) & (scale > 0) & (miss < error)
        for best, value in ((parts, part), (offset, shift), (error, miss)):
            np.copyto(best, value, where=better)
    values = (codes * parts[:, None] + offset[:, None]).astype(np.int8)
    step = safe / np.maximum(parts, 1)
    wide = codes * scale[:, None] + minimum[:, None]
    singly, singly_scale = _round_q8(wide)
    use = error > np.abs(wide).max(axis=1) / Q8_LIMIT * 12**-0.5  # what rounding alone is off, in the mean of squares
    return np.where(use[:, None], singly, values), np.where(use, singly_scale, step)


def _round_q8(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric: scale = largest magnitude / 127."""
    scale = (np.abs(groups).max(axis=1) / Q8_LIMIT).astype(np.float16)
    steps = np.rint(groups * inverse(scale)[:, None])
    return np.clip(steps, -Q8_LIMIT, Q8_LIMIT).astype(np.int8), scale


def _round_q4s(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric: the weight of the largest magnitude gets the code 0, the one code that has no counterpart."""
    outermost = np.take_along_axis(groups, np.abs(groups).argmax(axis=1)[:, None], axis=1)[:, 0]
    scale = (outermost / -Q4S_ZERO).astype(np.float16)
    steps = np.rint(groups * inverse(scale)[:, None]) + Q4S_ZERO
    return np.clip(steps, 0, Q4_LIMIT).astype(np.uint8), scale
