"""Products on a GPU, for every format, against NumPy."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build, packed

from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import Linear, linear
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import Format

pytestmark = NEEDS_GPU
OUTPUTS, INPUTS = 104, 96  # six and a half blocks of outputs: a tile of four is not full, nor is the last block


@pytest.mark.parametrize("fmt", Format)
def test_products_of_one_row_of_a_few_and_of_many(fmt: Format) -> None:
    rng = np.random.default_rng(1)
    words, matrix = packed(fmt, OUTPUTS, INPUTS)
    width = 112
    ending = Ending(OUTPUTS, width, bias=True, function="gelu", scale=0.5, residual="float32", cap=4.0)
    kernel = build(linear(Linear(Packed(fmt, OUTPUTS, INPUTS, half=False), ending, "float32", "float32", Gpu())))
    bias = rng.standard_normal(OUTPUTS).astype(np.float32)
    for n in (1, 3, 17, 70):
        x = rng.standard_normal((n, INPUTS)).astype(np.float32) / 8
        residual = rng.standard_normal((n, width)).astype(np.float32)
        y = np.full((n, width), np.nan, np.float32)
        kernel(x, words, bias, residual, y)
        sums = x.astype(np.float64) @ matrix.T.astype(np.float64) + bias
        inner = 0.5 * _gelu(sums) + residual[:, :OUTPUTS]
        np.testing.assert_allclose(y[:, :OUTPUTS], 4 * np.tanh(inner / 4), atol=2e-5)


@pytest.mark.parametrize("function", ["silu", "swiglu_clamped"])
def test_gated_products(function: str) -> None:
    rng = np.random.default_rng(2)
    words, matrix = packed(Format.Q4, 96, 64)
    kernel = build(
        linear(
            Linear(
                Packed(Format.Q4, 96, 64, half=False),
                Ending(96, 48, gated=True, function=function),
                "float32",
                "float32",
                Gpu(),
            )
        )
    )
    for n in (1, 5, 20):
        x = rng.standard_normal((n, 64)).astype(np.float32)
        y = np.full((n, 48), np.nan, np.float32)
        kernel(x, words, y)
        gate, up = np.split(x.astype(np.float64) @ matrix.T, 2, axis=1)
        if function == "silu":
            expected = gate / (1 + np.exp(-gate)) * up
        else:
            gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
            expected = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
        np.testing.assert_allclose(y, expected, atol=1e-3)


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
