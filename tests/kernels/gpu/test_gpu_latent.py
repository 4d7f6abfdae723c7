"""Latent attention on a GPU: rows in pages, queries, products of heads, and attention, against NumPy.

Sizes are those of DeepSeek-V2-Lite, but for fewer heads.
"""

from __future__ import annotations

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build, packed

from cupola.kernels.gpu.attention import Attention, attention
from cupola.kernels.gpu.latent import ByHead, append_latent, linear_by_head, split_queries
from cupola.kernels.gpu.norm import NormSpec
from cupola.kernels.gpu.pages import LatentPages
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.kernels.latent_shape import LatentShape
from cupola.quantize.formats import Format

pytestmark = NEEDS_GPU
SHAPE = LatentShape(heads=4, latent=512, rotary=64, plain=128, value=128)
PAGES = LatentPages.of(SHAPE, 16, "float32")
LENGTHS = (300, 17, 130)


def table_of(rows: int) -> np.ndarray:
    angles = np.random.default_rng(4).uniform(0, 7, (rows, SHAPE.rotary // 2))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rotated(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The last axis of [rows, ..., rotary], by halves."""
    a, b = np.split(x.astype(np.float64), 2, axis=-1)
    cos, sin = (table[:, i].reshape(len(table), *[1] * (x.ndim - 2), -1) for i in range(2))
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def test_rows_go_to_their_slots_and_nowhere_else() -> None:
    rng, slots = np.random.default_rng(0), np.array([3, 16 * 7 + 2, 50, 9 * 16 + 15], np.int32)
    x = rng.standard_normal((4, 592)).astype(np.float32)
    weight, table = rng.standard_normal(512).astype(np.float32), table_of(4)
    pages = np.full((10, PAGES.elements), np.nan, np.float32)
    build(append_latent(PAGES, 592, NormSpec(512, 1e-6), "float32", 256))(x, weight, table, slots, pages)
    latent = x[:, :512].astype(np.float64)
    latent *= weight / np.sqrt((latent**2).mean(axis=1, keepdims=True) + 1e-6)
    found = pages.reshape(10, 576, 16).transpose(0, 2, 1).reshape(-1, 576)
    np.testing.assert_allclose(found[slots], np.hstack([latent, rotated(x[:, 512:576], table)]), atol=1e-5)
    assert np.isnan(np.delete(found, slots, axis=0)).all()


def test_queries_are_split_scaled_and_rotated() -> None:
    x, table = np.random.default_rng(1).standard_normal((3, 4 * 192)).astype(np.float32), table_of(3)
    q, r = np.full((3, 4 * 128), np.nan, np.float32), np.full((3, 4 * 64), np.nan, np.float32)
    build(split_queries(SHAPE, 4 * 192, 0.25, "float32"))(x, table, q, r)
    heads = x.reshape(3, 4, 192)
    np.testing.assert_array_equal(q.reshape(3, 4, 128), heads[..., :128] / 4)
    np.testing.assert_allclose(r.reshape(3, 4, 64), rotated(heads[..., 128:], table) / 4, atol=1e-6)


@pytest.mark.parametrize("fmt", [Format.F32, Format.F16, Format.Q4])
def test_every_head_has_a_matrix_of_its_own(fmt: Format) -> None:
    heads, inputs, outputs = 3, 64, 96  # six blocks a head: a tile of four and one of two
    words, matrix = packed(fmt, heads * outputs, inputs)
    by_head = matrix.astype(np.float64).reshape(heads, outputs, inputs)
    kernel = build(linear_by_head(ByHead(Packed(fmt, heads * outputs, inputs, half=False), heads, "float32", Gpu())))
    for n in (1, 3, 17, 70):
        x = np.random.default_rng(n).standard_normal((n, heads * inputs)).astype(np.float32)
        y = np.full((n, heads * outputs), np.nan, np.float32)
        kernel(x, words, y)
        expected = np.einsum("nhk,hok->nho", x.reshape(n, heads, inputs), by_head)
        np.testing.assert_allclose(y.reshape(n, heads, outputs), expected, atol=1e-4)


def test_attention_by_tiles_and_by_parts() -> None:
    spec = Attention(PAGES, Gpu(), "float32")
    kernel = build(attention(spec))
    for rows in ((1, 1, 1), (7, 1, 130)):
        _check_attention(spec, kernel, rows)


def _check_attention(spec: Attention, kernel: object, rows: tuple[int, ...]) -> None:
    rng, counts = np.random.default_rng(0), [-(-length // 16) for length in LENGTHS]
    pages = np.full((sum(counts) + 1, 576, 16), np.nan, np.float32)
    ids = rng.permutation(len(pages))[: sum(counts)].astype(np.int32)
    begins, indptr = (np.cumsum([0, *sizes]).astype(np.int32) for sizes in (counts, rows))
    queries = rng.standard_normal((indptr[-1], SHAPE.heads, 576)).astype(np.float32) * np.float32(576**-0.5)
    expected = []
    for s, length in enumerate(LENGTHS):
        stored = rng.standard_normal((length, 576)).astype(np.float32)
        for token, row in enumerate(stored):
            pages[ids[begins[s] + token // 16], :, token % 16] = row
        for i in range(rows[s]):
            seen = stored[: length - rows[s] + i + 1].astype(np.float64)
            weights = np.exp(queries[indptr[s] + i] @ seen.T)
            expected.append(weights / weights.sum(axis=1, keepdims=True) @ seen[:, :512])
    slots = int(spec.slots(len(ids), len(LENGTHS)))
    q, r = (np.ascontiguousarray(part).reshape(len(queries), -1) for part in np.split(queries, [512], axis=2))
    y, partials = np.full_like(q, np.nan), np.zeros((slots, SHAPE.heads, SHAPE.latent + 2), np.float32)
    lengths = np.array(LENGTHS, np.int32)
    kernel(q, r, pages.reshape(len(pages), -1), indptr, begins, ids, lengths, y, partials)  # type: ignore[operator]
    np.testing.assert_allclose(y.reshape(len(y), SHAPE.heads, -1), np.array(expected), atol=2e-5)
