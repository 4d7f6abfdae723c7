"""Whether a few rows of a product go through the matrix unit, and how."""

from __future__ import annotations

from cupola.kernels.gpu.code_columns import CodeColumns
from cupola.kernels.gpu.codes import codes_of
from cupola.kernels.gpu.columns import Columns
from cupola.kernels.gpu.float_columns import FloatColumns
from cupola.kernels.gpu.matrix_unit import MatrixUnit
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import GROUP, Format

_OWN = {"float16": Format.F16, "bfloat16": Format.BF16}


def columns_of(matrix: Packed, unit: MatrixUnit | None, x: str, rows: int, halves: int) -> Columns | None:
    """The way of up to `rows` rows; None: there is no matrix unit, or no quick way to it.

    Args:
        x: the type of the rows as it lies in memory.
    """
    if unit is None or matrix.inputs % GROUP or x == "float32":
        return None
    if matrix.format is _OWN[unit.dtype]:
        return FloatColumns(matrix, unit, rows, halves)
    codes = codes_of(matrix.format, unit.dtype)
    return None if codes is None else CodeColumns(matrix, unit, rows, halves, codes)
