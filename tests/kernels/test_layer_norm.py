"""Biases, layer norms, activation functions, tables and pooling of encoders against NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from cupola.kernels.cpu.encoder_rows import EmbedSpec, embed, pool, project
from cupola.kernels.cpu.layer_norm import LayerNormSpec, activate, layer_norm
from kernels.kernel_driver import build

EPS, WIDTH = 1e-5, 72


def normed(x: np.ndarray, weight: np.ndarray, shift: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPS) * weight + shift


def vectors(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(WIDTH).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("rows", [1, 2, 17])
def test_layer_norm(rows: int) -> None:
    x = 3 + np.random.default_rng(rows).standard_normal((rows, WIDTH)).astype(np.float32)
    bias, weight, shift = vectors(3, 0)
    y = np.zeros_like(x)
    build(layer_norm(LayerNormSpec(WIDTH, EPS), None))(x, weight, bias, shift, y)
    np.testing.assert_allclose(y, normed(x + bias, weight, shift), rtol=1e-4, atol=1e-5)


def test_layer_norm_without_biases() -> None:
    x = 3 + np.random.default_rng(9).standard_normal((4, WIDTH)).astype(np.float32)
    (weight,) = vectors(1, 0)
    y = np.zeros_like(x)
    build(layer_norm(LayerNormSpec(WIDTH, EPS, biased=False, shifted=False), None))(x, weight, y)
    np.testing.assert_allclose(y, normed(x, weight, np.zeros(1)), rtol=1e-4, atol=1e-5)


def test_project() -> None:
    rng = np.random.default_rng(8)
    x, w = (rng.standard_normal((rows, WIDTH)).astype(np.float32) for rows in (5, 3))
    bias, y = np.arange(3, dtype=np.float32), np.zeros((5, 3), np.float32)
    build(project(WIDTH, 3))(x, w, bias, y)
    np.testing.assert_allclose(y, x.astype(np.float64) @ w.T + bias, atol=1e-5)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "relu", "tanh"])
def test_activation_functions(name: str) -> None:
    x = np.linspace(-12, 12, 5 * WIDTH, dtype=np.float32).reshape(5, WIDTH)
    (bias,) = vectors(1, 1)
    y = np.zeros_like(x)
    build(activate(WIDTH, name, None))(x, bias, y)
    z = (x + bias).astype(np.float64)
    expected = {
        "gelu": z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2))),
        "gelu_tanh": 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
        "relu": np.maximum(z, 0),
        "tanh": np.tanh(z),
    }
    np.testing.assert_allclose(y, expected[name], atol=2e-6, rtol=1e-6)


def test_embed() -> None:
    rng = np.random.default_rng(2)
    tables = [rng.standard_normal((rows, WIDTH)).astype(np.float32) for rows in (11, 9, 2)]
    weight, shift = vectors(2, 3)
    ids, positions, types = (np.array(v, np.int32) for v in ([10, 0, 3], [0, 6, 2], [0, 1, 0]))
    y = np.zeros((3, WIDTH), np.float32)
    build(embed(EmbedSpec(WIDTH, 11, 9, 2, 2, "float32", EPS)))(
        ids, tables[0], positions, tables[1], types, tables[2], weight, shift, y
    )
    summed = tables[0][ids] + tables[1][positions + 2] + tables[2][types]
    np.testing.assert_allclose(y, normed(summed, weight, shift), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("how", ["mean", "cls", "last"])
def test_pool(how: str, normalize: bool) -> None:
    x = np.random.default_rng(4).standard_normal((12, WIDTH)).astype(np.float32)
    indptr = np.array([0, 1, 5, 12], np.int32)
    y = np.zeros((3, WIDTH), np.float32)
    build(pool(WIDTH, how, normalize))(x, indptr, y)
    rows = [x[a:b].astype(np.float64) for a, b in itertools.pairwise(indptr)]
    expected = np.array([{"mean": r.mean(axis=0), "cls": r[0], "last": r[-1]}[how] for r in rows])
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
