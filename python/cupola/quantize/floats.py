"""Float formats: float32 matrices in 32 or 16 bits, and back.

Owns how they are rounded and what refuses to be; it knows nothing of packed layouts or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from cupola.errors import ModelError
from cupola.quantize.formats import Format

# What the elements of a float format are in memory; bfloat16, which NumPy does not have, as its bits.
FLOAT_DTYPES: Mapping[Format, np.dtype] = MappingProxyType(
    {
        Format.F32: np.dtype(np.float32),
        Format.F16: np.dtype(np.float16),
        Format.BF16: np.dtype(np.uint16),
    }
)


def narrow(matrix: np.ndarray, fmt: Format) -> np.ndarray:
    """Rounds floats to `fmt` (F32, F16 or BF16), to the nearest, ties to even.

    Values that the format has keep their bits, and an array of `FLOAT_DTYPES[fmt]` is returned as it is.

    Raises:
        ModelError: values are not finite, or beyond the range of a 16-bit format.
    """
    dtype = FLOAT_DTYPES[fmt]
    if matrix.dtype == dtype:
        return matrix
    wide = np.ascontiguousarray(matrix, dtype=np.float32)
    if fmt is Format.F32:
        return wide
    result: np.ndarray
    if fmt is Format.F16:
        with np.errstate(over="ignore"):
            result = wide.astype(np.float16)
        finite = np.isfinite(result)
    else:
        bits = wide.view(np.uint32)
        result = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
        finite = np.isfinite(wide) & np.isfinite(widen(result, fmt))
    if not finite.all():
        raise ModelError(
            f"the matrix holds {wide[~finite].flat[0]:g}, which is not a number of {fmt.value}",
            hint="bf16 has the range of float32, f16 ends at 65504." if fmt is Format.F16 else None,
        )
    return result


def widen(values: np.ndarray, fmt: Format) -> np.ndarray:
    """The float32 values of an array of `FLOAT_DTYPES[fmt]`, which every float format has exactly."""
    if fmt is Format.BF16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
