"""Norms and dynamic quantization against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.kernels.cpu import activation
from kernels.kernel_driver import build

EPS = 1e-5


def normed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    exact = x.astype(np.float64)
    return exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + EPS) * weight


@pytest.mark.parametrize("rows", [1, 2, 3, 17])
def test_rms_norm(rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, weight = rng.standard_normal((rows, 72), np.float32), rng.standard_normal(72, np.float32)
    y = np.zeros_like(x)
    build(activation.rms_norm(72, EPS))(x, weight, y)
    np.testing.assert_allclose(y, normed(x, weight), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_quantize(rows: int, with_norm: bool) -> None:
    rng = np.random.default_rng(rows)
    x, weight = rng.standard_normal((rows, 96), np.float32), rng.standard_normal(96, np.float32)
    x[0, 32:64] = 0.0  # a group without any value must not divide by zero
    q, s = np.zeros((rows, 96), np.int8), np.zeros((rows, 3, 2), np.float32)
    arguments = (x, weight, q, s) if with_norm else (x, q, s)
    build(activation.quantize(96, EPS if with_norm else None))(*arguments)

    expected = normed(x, weight) if with_norm else x
    groups = expected.reshape(rows, 3, 32)
    scale = np.abs(groups).max(axis=-1) / 127
    np.testing.assert_allclose(s[..., 0], scale, rtol=1e-5)
    integers = q.reshape(rows, 3, 32).astype(np.int64)
    assert np.abs(integers).max() == 127
    assert np.abs(integers * scale[..., None] - groups).max() <= 0.501 * scale.max()
    assert np.array_equal(s[..., 1], integers.sum(axis=-1))
    assert not q[0, 32:64].any()
    assert not s[0, 1].any()
