"""Products of a few rows on matrix units: numerically with the instructions taken apart."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build, packed
from matrix_model import model
from tvm import tirx

from cupola.kernels.emit import Arg
from cupola.kernels.gpu.column_choice import columns_of
from cupola.kernels.gpu.emit import kernel, size_var
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.experts import Experts, in_columns
from cupola.kernels.gpu.linear import Linear
from cupola.kernels.gpu.pages import GpuPages
from cupola.kernels.gpu.position import Append, rotate_append
from cupola.kernels.gpu.project import Projection
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.kernels.heads import HeadShape
from cupola.quantize.formats import Format

pytestmark = NEEDS_GPU


def product(spec: Linear, rows: int) -> tirx.PrimFunc:
    """The product with so many columns for rows; x comes as words."""
    n = size_var("n")
    args = {
        "x": Arg((n, spec.matrix.inputs // 2), "uint32"),
        "w": Arg(spec.matrix.shape, spec.matrix.dtype),
        **spec.ending.args(n),
        "y": Arg((n, spec.ending.width), spec.y),
    }
    way = columns_of(spec.matrix, spec.gpu.matrix, spec.x, rows, spec.halves)
    assert way is not None
    return kernel("product", args, lambda **spans: spec.in_columns(n, spans, way))


def inputs(n: int, width: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(random activations as words, what they are)."""
    x = np.random.default_rng(n).standard_normal((n, width)).astype(np.float32)
    if dtype == "float16":
        return x.astype(np.float16).view(np.uint32), x.astype(np.float16).astype(np.float64)
    codes = ((x.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
    return codes.view(np.uint32), (codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


CASES = [
    (Format.Q4S, "bfloat16", 4, 3, 160),
    (Format.Q8, "float16", 1, 1, 96),
    (Format.MXFP4, "float16", 8, 2, 128),
    (Format.F16, "float16", 8, 7, 96),
    (Format.BF16, "bfloat16", 1, 1, 320),
]


@pytest.mark.parametrize(("fmt", "dtype", "rows", "n", "width"), CASES)
def test_products_are_those_of_numpy(fmt: Format, dtype: str, rows: int, n: int, width: int) -> None:
    """With a block of outputs that has no neighbour, and steps that are not full."""
    matrix, rng, outputs = Packed(fmt, 72, width, half=False), np.random.default_rng(1), 80
    ending = Ending(72, outputs, bias=True, residual="float32")
    spec = Linear(matrix, ending, "uint32", "float32", Gpu(matrix=model(dtype)))
    words, weights = packed(fmt, 72, width)
    (x, values), residual = inputs(n, width, dtype), rng.standard_normal((n, outputs)).astype(np.float32)
    bias, y = rng.standard_normal(72).astype(np.float32), np.full((n, outputs), np.nan, np.float32)
    build(product(spec, rows))(x, words, bias, residual, y)
    expected = values @ weights.T.astype(np.float64) + bias + residual[:, :72]
    np.testing.assert_allclose(y[:, :72], expected, atol=2e-3)


@pytest.mark.parametrize("rows", [1, 8])
def test_gated_products_meet_their_halves(rows: int) -> None:
    matrix, n = Packed(Format.Q4, 96, 320, half=False), rows
    spec = Linear(matrix, Ending(96, 48, gated=True), "uint32", "float32", Gpu(matrix=model("float16")))
    words, weights = packed(Format.Q4, 96, 320)
    (x, values), y = inputs(n, 320, "float16"), np.full((n, 48), np.nan, np.float32)
    build(product(spec, rows))(x, words, y)
    gate, up = np.split(values @ weights.T.astype(np.float64), 2, axis=1)
    np.testing.assert_allclose(y, gate / (1 + np.exp(-gate)) * up, rtol=1e-4, atol=0.05)


def test_products_of_experts_go_one_by_one() -> None:
    matrix, rng, width, count = Packed(Format.F16, 4 * 48, 64, half=False), np.random.default_rng(3), 64, 4
    spec = Experts(
        matrix, Ending(48, 48, bias=True), count, 2, False, "uint32", "float32", Gpu(matrix=model("float16"))
    )
    way = columns_of(matrix, spec.gpu.matrix, spec.x, 1, 1)
    assert way is not None
    n, pairs = size_var("n"), size_var("pairs")
    args = {
        "x": Arg((n, width // 2), "uint32"),
        "experts": Arg((pairs,), "int32"),
        "w": Arg(matrix.shape, matrix.dtype),
        "b": Arg((4 * 48,), "float32"),
        "y": Arg((pairs, 48), "float32"),
    }
    (x, values), (words, weights) = inputs(2, width, "float16"), packed(Format.F16, 4 * 48, width)
    experts, bias = np.array([3, 0, 2, 3], np.int32), rng.standard_normal(4 * 48).astype(np.float32)
    y = np.full((4, 48), np.nan, np.float32)
    build(kernel("experts", args, lambda **spans: in_columns(spec, spans, pairs, way)))(x, experts, words, bias, y)
    for pair, expert in enumerate(experts):
        rows = slice(48 * expert, 48 * expert + 48)
        np.testing.assert_allclose(y[pair], values[pair // 2] @ weights[rows].T + bias[rows], atol=2e-3)


@pytest.mark.parametrize("n", [1, 3])
def test_projections_rotate_and_append(n: int) -> None:
    """As the product followed by `rotate_append` does it."""
    heads, width, rng = HeadShape(2, 1, 64), 64, np.random.default_rng(4)
    pages, outputs = GpuPages(heads, 4, "float32"), 4 * 64
    linear = Linear(
        *(Packed(Format.F16, outputs, width, half=False), Ending(outputs, outputs, bias=True)),
        *("uint32", "float32", Gpu(matrix=model("float16"))),
    )
    spec = Projection(linear, Append(pages, outputs, 64, 0.5, "float32"))
    way = spec.way(1 if n == 1 else 8)
    assert way is not None
    rows = size_var("n")
    args = {"x": Arg((rows, width // 2), "uint32"), "w": Arg(linear.matrix.shape, "uint32")}
    args |= linear.ending.args(rows) | {k: v for k, v in spec.append.args(rows).items() if k != "qkv"}
    (x, values), (words, weights) = inputs(n, width, "float16"), packed(Format.F16, outputs, width)
    bias, table = rng.standard_normal(outputs).astype(np.float32), rng.standard_normal((n, 2, 32)).astype(np.float32)
    slots, q = np.arange(5, 5 + n, dtype=np.int32), np.full((n, 128), np.nan, np.float32)
    stored = np.zeros((3, pages.elements), np.float32)
    expected_q, expected_pages = q.copy(), stored.copy()
    build(kernel("project", args, lambda **spans: spec.few(rows, spans, way)))(x, words, bias, table, slots, stored, q)
    qkv = (values @ weights.T + bias).astype(np.float32)
    build(rotate_append(spec.append))(qkv, table, slots, expected_pages, expected_q)
    np.testing.assert_allclose(q, expected_q, atol=2e-3)
    np.testing.assert_allclose(stored, expected_pages, atol=2e-3)
