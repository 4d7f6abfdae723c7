"""Rotary positions and the append to pages against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.kernels.cpu.pages import HeadShape, PageLayout
from cupola.kernels.cpu.position import AppendSpec, HeadNormSpec, norm_heads, rotary_table, rotate_append
from kernels.kernel_driver import build
from kernels.paged import PageView, empty_pages

POSITIONS = np.array([3, 0, 7, 1000, 5], np.int32)
SLOTS = np.array([3, 16 * 7 + 2, 50, 33, 9 * 16 + 15], np.int32)


def rotated(x: np.ndarray, frequencies: np.ndarray, dim: int) -> np.ndarray:
    half = dim // 2
    angles = (POSITIONS[:, None].astype(np.float32) * frequencies).astype(np.float64)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:dim]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., dim:]], axis=-1)


# Half a code of the largest component.
TOLERANCE = {"float16": 4e-3, "float32": 1e-4, "int8": 0.52 / 127 * 4, "int16": 0.52 / 8191 * 4}


@pytest.mark.parametrize(
    ("rotary_dim", "dtype"),
    [(0, "float32"), (64, "float16"), (32, "float32"), (64, "int8"), (32, "int8"), (64, "int16"), (32, "int16")],
    ids=str,
)
def test_rotate_append(rotary_dim: int, dtype: str) -> None:
    heads = HeadShape(6, 2, 64)
    layout = PageLayout(heads, 16, dtype)
    rng = np.random.default_rng(0)
    n, width = len(POSITIONS), 10 * 64
    qkv = rng.uniform(-2.5, 2.5, (n, width)).astype(np.float32)
    frequencies = (1 / 10000 ** (np.arange(rotary_dim // 2) / max(rotary_dim // 2, 1))).astype(np.float32)
    table = np.zeros((n, 2, rotary_dim // 2), np.float32)
    if rotary_dim:
        build(rotary_table(rotary_dim // 2, 1.0))(POSITIONS, frequencies, table)
    pages, q = empty_pages(layout, 10), np.zeros((n, 6 * 64), np.float32)
    before = pages.copy()
    append = build(rotate_append(AppendSpec(heads, layout, width, rotary_dim)))
    append(qkv, *([table] if rotary_dim else []), SLOTS, pages, q)

    x = qkv.reshape(n, 10, 64).astype(np.float64)
    np.testing.assert_allclose(q.reshape(n, 6, 64), rotated(x[:, :6], frequencies, rotary_dim) / 8, atol=1e-5)
    for row, slot in enumerate(SLOTS):
        page, token = divmod(slot, 16)
        view, untouched = PageView(layout, pages[page]), PageView(layout, before[page])
        expected = rotated(x[:, 6:8], frequencies, rotary_dim)[row], x[row, 8:]
        for kind, stored in enumerate((view.key(token), view.value(token))):
            scale = 1.0 if view.scales is None else view.scales[:, kind, token, None].astype(np.float64)
            np.testing.assert_allclose(stored * scale, expected[kind], atol=TOLERANCE[dtype])
        # Put back what was there: then nothing beside the appended slots may differ.
        view.put(0, token, untouched.key(token))
        view.put(1, token, untouched.value(token))
        if view.scales is not None:
            view.scales[:, :, token] = untouched.scales[:, :, token]
    assert pages.tobytes() == before.tobytes(), "slots beside the appended ones were written"


def test_int8_pages_use_the_whole_range_of_codes_and_take_zeros() -> None:
    heads = HeadShape(1, 1, 16)
    layout = PageLayout(heads, 16, "int8")
    qkv = np.zeros((2, 48), np.float32)
    qkv[0, 16:] = np.linspace(-3, 7, 32)
    pages, q = empty_pages(layout, 1), np.zeros((2, 16), np.float32)
    table = np.stack([np.ones((2, 8), np.float32), np.zeros((2, 8), np.float32)], axis=1)
    build(rotate_append(AppendSpec(heads, layout, 48, 16)))(qkv, table, np.array([5, 6], np.int32), pages, q)
    view = PageView(layout, pages[0])
    assert (np.abs(view.key(5)).max(), view.value(5).max()) == (127, 127)
    np.testing.assert_allclose(view.scales[0, :, 5], np.abs(qkv[0, 16:].reshape(2, 16)).max(axis=1) / 127, rtol=1e-6)
    assert not view.key(6).any()
    assert not view.value(6).any()
    assert not view.scales[:, :, 6].any()


def test_the_scale_of_queries_is_the_models() -> None:
    heads = HeadShape(1, 1, 16)
    spec = AppendSpec(heads, PageLayout(heads, 16, "float32"), 48, 16, query_scale=0.25)
    table = np.stack([np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32)], axis=1)
    q = np.zeros((1, 16), np.float32)
    build(rotate_append(spec))(np.ones((1, 48), np.float32), table, SLOTS[:1], empty_pages(spec.pages, 1), q)
    assert (q == 0.25).all()


@pytest.mark.parametrize("by_head", [True, False])
@pytest.mark.parametrize("centered", [True, False])
def test_norm_heads(by_head: bool, centered: bool) -> None:
    heads, n, width = HeadShape(6, 2, 16), 3, 176  # ten heads of 16, and padding
    rng = np.random.default_rng(1)
    qkv = rng.standard_normal((n, width)).astype(np.float32)
    weights = [rng.standard_normal(size).astype(np.float32) for size in (96, 32)]
    y = np.zeros_like(qkv)
    build(norm_heads(HeadNormSpec(heads, width, by_head, 1e-5, centered)))(qkv, *weights, y)
    for first, count, weight in ((0, 6, weights[0]), (6, 2, weights[1])):
        part = qkv[:, first * 16 : (first + count) * 16].astype(np.float64)
        x = part.reshape(n, -1, 16) if by_head else part[:, None]
        x = x - x.mean(axis=-1, keepdims=True) if centered else x
        expected = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * weight.reshape(x.shape[1:])
        np.testing.assert_allclose(y[:, first * 16 : (first + count) * 16], expected.reshape(n, -1), atol=1e-5)
    np.testing.assert_array_equal(y[:, 128:160], qkv[:, 128:160])
