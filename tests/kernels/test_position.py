"""Rotary positions and the append to pages against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.kernels.cpu.pages import HeadShape, PageLayout
from cupola.kernels.cpu.position import AppendSpec, rotary_table, rotate_append
from kernels.kernel_driver import build

POSITIONS = np.array([3, 0, 7, 1000, 5], np.int32)
SLOTS = np.array([3, 16 * 7 + 2, 50, 33, 9 * 16 + 15], np.int32)


def rotated(x: np.ndarray, frequencies: np.ndarray, dim: int) -> np.ndarray:
    half = dim // 2
    angles = (POSITIONS[:, None].astype(np.float32) * frequencies).astype(np.float64)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:dim]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., dim:]], axis=-1)


@pytest.mark.parametrize(("rotary_dim", "dtype"), [(64, "float16"), (32, "float32")])
def test_rotate_append(rotary_dim: int, dtype: str) -> None:
    heads = HeadShape(6, 2, 64)
    layout = PageLayout(heads, 16, dtype)
    rng = np.random.default_rng(0)
    n, width = len(POSITIONS), 10 * 64
    qkv = rng.standard_normal((n, width)).astype(np.float32)
    frequencies = (1 / 10000 ** (np.arange(rotary_dim // 2) / (rotary_dim // 2))).astype(np.float32)
    table = np.zeros((n, 2, rotary_dim // 2), np.float32)
    build(rotary_table(rotary_dim // 2, 1.0))(POSITIONS, frequencies, table)
    pages = np.zeros((10, layout.elements), dtype)
    q = np.zeros((n, 6 * 64), np.float32)
    build(rotate_append(AppendSpec(heads, layout, width, rotary_dim)))(qkv, table, SLOTS, pages, q)

    x = qkv.reshape(n, 10, 64).astype(np.float64)
    np.testing.assert_allclose(q.reshape(n, 6, 64), rotated(x[:, :6], frequencies, rotary_dim) / 8, atol=1e-5)
    tolerance = 4e-3 if dtype == "float16" else 1e-4
    stored = pages.reshape(10, 2, 2, -1)
    for row, slot in enumerate(SLOTS):
        page, token = divmod(slot, 16)
        keys = stored[page, :, 0].reshape(2, 64, 16)[:, :, token]
        values = stored[page, :, 1].reshape(2, 16, 64)[:, token]
        np.testing.assert_allclose(keys, rotated(x[:, 6:8], frequencies, rotary_dim)[row], atol=tolerance)
        np.testing.assert_allclose(values, x[row, 8:], atol=tolerance)
    assert np.count_nonzero(pages) == n * 2 * 2 * 64, "slots beside the appended ones were written"
