"""What becomes of a product's sums, against NumPy: biases, functions, factors, residuals, caps."""

from __future__ import annotations

from collections.abc import Callable
from math import erf

import numpy as np
import pytest

from cupola.kernels.cpu.linear import linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.quantize.formats import Format
from cupola.quantize.layouts import pack
from kernels.kernel_driver import INSTRUCTION_SETS, build

FUNCTIONS = {
    None: lambda x: x,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}
SPECS = [
    *(LinearSpec(Format.F32, 40, 48, bias=True, function=function) for function in FUNCTIONS),
    *(LinearSpec(Format.F32, 40, 96, gated=True, bias=True, function=function) for function in FUNCTIONS if function),
    LinearSpec(Format.F32, 40, 41, bias=True),  # the bias ends within the last block
    LinearSpec(Format.F32, 40, 48, bias=True, scale=0.25, residual=True),
    LinearSpec(Format.F32, 40, 41, scale=2.0, cap=3.0),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_epilogue(spec: LinearSpec) -> None:
    product = build(linear(spec, INSTRUCTION_SETS[-1]))
    for rows in (1, 7):
        check(spec, product, rows)


def check(spec: LinearSpec, product: Callable[..., None], rows: int) -> None:
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, spec.inputs), np.float32)
    w = rng.standard_normal((spec.outputs, spec.inputs), np.float32) / np.float32(3)
    b = rng.standard_normal(spec.outputs, np.float32)
    r = rng.standard_normal((rows, spec.width), np.float32)
    y = np.zeros((rows, spec.width), np.float32)
    tensors = [x, pack(w, spec.format), *([b] if spec.bias else []), *([r] if spec.residual else [])]
    product(*tensors, y)

    sums = x.astype(np.float64) @ w.T + (b if spec.bias else 0)
    if spec.gated:
        gate, up = np.split(sums, 2, axis=1)
        expected = FUNCTIONS[spec.function](gate) * up
    else:
        expected = FUNCTIONS[spec.function](sums) * spec.scale
    if spec.residual:
        expected = expected + r
    if spec.cap:
        expected = spec.cap * np.tanh(expected / spec.cap)
    np.testing.assert_allclose(y[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-4)
