"""Norms and dynamic quantization against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.kernels.cpu import activation
from cupola.kernels.cpu.activation import NormSpec
from kernels.kernel_driver import build

EPS = 1e-5
NORMS = [NormSpec(EPS), NormSpec(EPS, bias=True), NormSpec(EPS, centered=True), NormSpec(EPS, centered=True, bias=True)]


def normed(x: np.ndarray, norm: NormSpec, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    exact = x.astype(np.float64)
    if norm.centered:
        exact = exact - exact.mean(axis=1, keepdims=True)
    exact = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + EPS) * weight
    return exact + bias if norm.bias else exact


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_norm(norm: NormSpec) -> None:
    rows = 17
    rng = np.random.default_rng(rows)
    x, weight, bias = (rng.standard_normal(shape, np.float32) for shape in ((rows, 72), 72, 72))
    vectors = [weight, bias] if norm.bias else [weight]
    y, z = np.zeros_like(x), np.zeros_like(x)
    build(activation.normed(72, norm, None))(x, *vectors, y)
    np.testing.assert_allclose(y, normed(x, norm, weight, bias), rtol=1e-4, atol=1e-5)
    before = rng.standard_normal((rows, 72), np.float32)
    build(activation.add_normed(72, norm))(before, x, *vectors, z)
    np.testing.assert_allclose(z, before + normed(x, norm, weight, bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [None, *NORMS], ids=str)
def test_quantize(norm: NormSpec | None) -> None:
    rows = 5
    rng = np.random.default_rng(rows)
    x, weight, bias = (rng.standard_normal(shape, np.float32) for shape in ((rows, 96), 96, 96))
    if norm is None:
        x[0, 32:64] = 0.0  # a group without any value must not divide by zero
    q, s = np.zeros((rows, 96), np.int8), np.zeros((rows, 3, 2), np.float32)
    if norm is None:
        build(activation.quantize(96))(x, q, s)
    else:
        build(activation.normed(96, norm, "int8"))(x, *([weight, bias] if norm.bias else [weight]), q, s)

    expected = x if norm is None else normed(x, norm, weight, bias)
    groups = expected.reshape(rows, 3, 32)
    scale = np.abs(groups).max(axis=-1) / 127
    np.testing.assert_allclose(s[..., 0], scale, rtol=1e-4)
    integers = q.reshape(rows, 3, 32).astype(np.int64)
    assert np.abs(integers).max() == 127
    assert np.abs(integers * scale[..., None] - groups).max() <= 0.501 * scale.max()
    assert np.array_equal(s[..., 1], integers.sum(axis=-1))
    if norm is None:
        assert not q[0, 32:64].any()
        assert not s[0, 1].any()
