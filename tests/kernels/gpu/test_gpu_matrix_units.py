"""Products on matrix units, numerically, with their instructions taken apart (`matrix_model.py`)."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build, packed
from matrix_model import model
from tvm import tirx

from cupola.kernels.emit import Arg
from cupola.kernels.gpu.emit import kernel, size_var
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.experts import Experts, on_units
from cupola.kernels.gpu.linear import Linear
from cupola.kernels.gpu.linear_matrix import MatrixTile, Shape
from cupola.kernels.gpu.matrix_unit import MatrixUnit
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import Format

pytestmark = NEEDS_GPU

# Every format, those with several ways to be unpacked by each of them. The type of activations is that of the unit.
CASES = [
    *((fmt, "float16") for fmt in (Format.F16, Format.BF16, Format.Q8, Format.Q4, Format.Q4S, Format.Q3, Format.MXFP4)),
    *((fmt, "bfloat16") for fmt in (Format.F32, Format.BF16, Format.Q4, Format.Q3)),
]


def product(spec: Linear, tile: MatrixTile, splits: int = 1) -> tirx.PrimFunc:
    """The product with one shape of tiles; x comes as words, since WebGPU has no 16-bit floats."""
    n = size_var("n")
    args = {
        "x": Arg((n, spec.matrix.inputs // 2), spec.x),
        "w": Arg(spec.matrix.shape, "uint32"),
        **spec.ending.args(n),
        "y": Arg((n, spec.ending.width), spec.y),
        **({"parts": Arg((splits * 32 * spec.ending.width,), "float32")} if splits > 1 else {}),
    }
    return kernel("product", args, lambda **spans: spec.on_units(n, spans, tile, splits))


def in_words(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(values as words of two 16-bit floats, what they stand for)."""
    if dtype == "float16":
        halves = values.astype(np.float16)
        return halves.view(np.uint32), halves.astype(np.float32)
    codes = values.view(np.uint32)
    codes = ((codes + 0x7FFF + ((codes >> 16) & 1)) >> 16).astype(np.uint16)
    return codes.view(np.uint32), (codes.astype(np.uint32) << 16).view(np.float32)


def spec_of(matrix: Packed, ending: Ending, unit: MatrixUnit) -> Linear:
    return Linear(matrix, ending, "uint32", "float32", Gpu(matrix=unit))


@pytest.mark.parametrize(("fmt", "dtype"), CASES)
def test_products_are_those_of_numpy(fmt: Format, dtype: str) -> None:
    """With rows, outputs and blocks that fill no tile, a bias, and what is added."""
    outputs, inputs, n = 40, 160, 21
    unit, matrix, rng = model(dtype), Packed(fmt, outputs, inputs, half=False), np.random.default_rng(1)
    spec = spec_of(matrix, Ending(outputs, 48, bias=True, residual="float32"), unit)
    words, weights = packed(fmt, outputs, inputs)
    x, rows = in_words(rng.standard_normal((n, inputs)).astype(np.float32), dtype)
    residual = rng.standard_normal((n, 48)).astype(np.float32)
    bias, y = rng.standard_normal(outputs).astype(np.float32), np.full((n, 48), np.nan, np.float32)
    tile = MatrixTile(matrix, unit, 1, Shape(across=1, down=1, blocks=1, pairs=1, stages=3))
    build(product(spec, tile))(x, words.view(np.uint32), bias, residual, y)
    expected = rows.astype(np.float64) @ in_words(weights, dtype)[1].T + bias + residual[:, :outputs]
    # Weights are rounded once where they are unpacked; through float16 first, they may fall to the other side of a tie.
    np.testing.assert_allclose(y[:, :outputs], expected, atol=2e-3 if dtype == "float16" else 2e-2)


def test_a_pipeline_is_right_however_late_copies_come() -> None:
    n, inputs, fmt = 16, 256, Format.MXFP4
    unit, matrix, rng = model("float16", late=True), Packed(fmt, 16, inputs, half=False), np.random.default_rng(3)
    words, weights = packed(fmt, 16, inputs)
    x, rows = in_words(rng.standard_normal((n, inputs)).astype(np.float32), "float16")
    y = np.full((n, 16), np.nan, np.float32)
    shape = Shape(across=1, down=1, blocks=1, pairs=1)
    build(product(spec_of(matrix, Ending(16, 16), unit), MatrixTile(matrix, unit, 1, shape)))(x, words, y)
    np.testing.assert_allclose(y, rows.astype(np.float64) @ in_words(weights, "float16")[1].T, atol=2e-3)


def test_sums_over_parts_of_the_inputs_are_added_up() -> None:
    fmt, outputs, inputs, n = Format.Q4S, 40, 256, 21
    unit, matrix, rng = model("bfloat16"), Packed(fmt, outputs, inputs, half=False), np.random.default_rng(6)
    words, weights = packed(fmt, outputs, inputs)
    x, rows = in_words(rng.standard_normal((n, inputs)).astype(np.float32), "bfloat16")
    residual, parts = rng.standard_normal((n, 48)).astype(np.float32), np.zeros(4 * 32 * 48, np.float32)
    y = np.full((n, 48), np.nan, np.float32)
    spec = spec_of(matrix, Ending(outputs, 48, residual="float32"), unit)
    tile = MatrixTile(matrix, unit, 1, Shape(across=2, down=1, blocks=1, pairs=1, groups=2, stages=3))
    build(product(spec, tile, splits=4))(x, words, residual, y, parts)
    expected = rows.astype(np.float64) @ in_words(weights, "bfloat16")[1].T + residual[:, :outputs]
    np.testing.assert_allclose(y[:, :outputs], expected, atol=2e-3)


def test_gated_products_meet_their_halves() -> None:
    """With warps above each other, several pairs of rows, and more tiles of rows than take turns."""
    unit, matrix, rng, n = model("bfloat16"), Packed(Format.Q4, 96, 64, half=False), np.random.default_rng(2), 600
    spec = spec_of(matrix, Ending(96, 48, gated=True), unit)
    words, weights = packed(Format.Q4, 96, 64)
    x, rows = in_words(rng.standard_normal((n, 64)).astype(np.float32), "bfloat16")
    y = np.full((n, 48), np.nan, np.float32)
    build(product(spec, MatrixTile(matrix, unit, 2, Shape(1, 2, blocks=2, pairs=2, stages=3))))(x, words, y)
    gate, up = np.split(rows.astype(np.float64) @ in_words(weights, "bfloat16")[1].T, 2, axis=1)
    np.testing.assert_allclose(y, gate / (1 + np.exp(-gate)) * up, atol=2e-3)


def test_products_of_experts_take_their_rows_by_the_order_of_pairs() -> None:
    """Of three experts, one has no pairs, and one more than a tile; each of the gated halves has a bias."""
    fmt, inputs, width, used = Format.MXFP4, 64, 16, 2
    unit, rng = model("float16"), np.random.default_rng(4)
    matrix, n, pairs = Packed(fmt, 3 * 2 * width, inputs, half=False), size_var("n"), size_var("pairs")
    spec = Experts(matrix, Ending(2 * width, width, gated=True, bias=True), 3, used, False, "uint32", "float32", Gpu())
    args = {
        "x": Arg((n, inputs // 2), "uint32"),
        "order": Arg((pairs,), "int32"),
        "begins": Arg((4,), "int32"),
        "w": Arg(matrix.shape, "uint32"),
        "b": Arg((matrix.outputs,), "float32"),
        "y": Arg((pairs, width), "float32"),
    }
    tile = MatrixTile(matrix, unit, 2, Shape(across=1, down=1, blocks=2, pairs=1, stages=3))
    kernel_ = build(kernel("experts", args, lambda **spans: on_units(spec, spans, pairs, tile)))
    words, weights = packed(fmt, matrix.outputs, inputs)
    x, rows = in_words(rng.standard_normal((12, inputs)).astype(np.float32), "float16")
    bias = rng.standard_normal(matrix.outputs).astype(np.float32)
    experts = np.array([0, 2, 2, 2] * 6, np.int32)
    order, begins = np.argsort(experts, kind="stable").astype(np.int32), np.array([0, 6, 6, 24], np.int32)
    y = np.full((24, width), np.nan, np.float32)
    kernel_(x, order, begins, words, bias, y)
    halves = in_words(weights, "float16")[1].reshape(3, 2, width, inputs), bias.reshape(3, 2, width)
    sums = np.einsum("phwk,pk->phw", halves[0][experts].astype(np.float64), rows[np.arange(24) // used])
    gate, up = np.moveaxis(sums + halves[1][experts], 1, 0)
    np.testing.assert_allclose(y, gate / (1 + np.exp(-gate)) * up, rtol=1e-3, atol=2e-2)
