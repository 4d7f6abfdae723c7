"""Latent attention: rows in pages, queries, products of heads, and attention, against NumPy and bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cupola.kernels.cpu.latent import ByHeadSpec, append_latent, linear_by_head, split_queries
from cupola.kernels.cpu.latent_attention import latent_attention
from cupola.kernels.cpu.latent_pages import LatentLayout
from cupola.kernels.latent_shape import LatentShape
from cupola.quantize.formats import Format
from cupola.quantize.layouts import pack
from cupola.quantize.rounding import dequantize, quantize
from kernels.kernel_cases import random_activations
from kernels.kernel_driver import INSTRUCTION_SETS, build
from kernels.latent_cases import (
    LatentPool,
    LatentRows,
    LatentView,
    empty_latent_pages,
    exact_latent_attention,
    latent_arguments,
)

SHAPE = LatentShape(heads=6, latent=64, rotary=32, plain=48, value=16)
LENGTHS = (300, 17, 256, 530, 1)
LAYOUTS = {
    "float32": LatentLayout.of(SHAPE, 16, "float32"),
    "float16": LatentLayout.of(LatentShape(16, 128, 64, 0, 0), 32, "float16"),
    "int16": LatentLayout.of(LatentShape(7, 96, 16, 0, 0), 16, "int16"),
    "int8": LatentLayout.of(SHAPE, 8, "int8"),
}


class Attention:
    """The kernel with a pool of sequences and a query for each of their tokens."""

    def __init__(self, layout: LatentLayout) -> None:
        self.layout = layout
        self.pool = LatentPool(layout, num_pages=1600 // layout.page_size)
        self.sequences = [self.pool.add(length) for length in LENGTHS]
        rng = np.random.default_rng(1)
        scale = np.float32(layout.row**-0.5)

        def random(count: int, width: int) -> np.ndarray:
            return rng.standard_normal((count, layout.heads.queries, width), dtype=np.float32) * scale

        self.q = [random(length, layout.heads.dim) for length in LENGTHS]
        self.r = [random(length, layout.rotary) for length in LENGTHS]
        self.kernel = build(latent_attention(layout, INSTRUCTION_SETS[-1]))

    def rows(self, s: int, first: int, stop: int) -> LatentRows:
        return LatentRows(self.q[s][first:stop], self.r[s][first:stop], stop, self.sequences[s])

    def __call__(self, parts: Sequence[LatentRows]) -> np.ndarray:
        arguments = latent_arguments(self.layout, self.pool.pages, parts)
        self.kernel(*arguments)
        return arguments[7].reshape(-1, self.layout.heads.queries, self.layout.heads.dim)


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS))
def kernel(request: pytest.FixtureRequest) -> Attention:
    return Attention(request.param)


@pytest.fixture(scope="module")
def whole(kernel: Attention) -> list[np.ndarray]:
    """Every row of every sequence, computed in one step."""
    y = kernel([kernel.rows(s, 0, n) for s, n in enumerate(LENGTHS)])
    return np.split(y, np.cumsum(LENGTHS)[:-1])


def test_prefill_is_exact(kernel: Attention, whole: list[np.ndarray]) -> None:
    for s, sequence in enumerate(kernel.sequences):
        expected = exact_latent_attention(kernel.layout, kernel.q[s], kernel.r[s], sequence.rows)
        np.testing.assert_allclose(whole[s], expected, atol=5e-6)


def test_every_road_gives_the_same_bits(kernel: Attention, whole: list[np.ndarray]) -> None:
    few = kernel([kernel.rows(s, n - 1, n) for s, n in enumerate(LENGTHS)])
    many = kernel([kernel.rows(3, row, row + 1) for row in range(210, 280)])
    mixed = kernel([kernel.rows(3, 100, 331), kernel.rows(4, 0, 1), kernel.rows(1, 5, 17), kernel.rows(2, 255, 256)])
    assert np.array_equal(few, np.array([rows[-1] for rows in whole]))
    assert np.array_equal(many, whole[3][210:280])
    assert np.array_equal(mixed, np.concatenate([whole[3][100:331], whole[4], whole[1][5:17], whole[2][255:]]))


def test_vectors_of_many_and_of_few_registers_agree() -> None:
    attention, found = Attention(LAYOUTS["int16"]), []
    parts = [attention.rows(0, 0, 300), attention.rows(1, 16, 17)]
    for isa in (INSTRUCTION_SETS[0], INSTRUCTION_SETS[-1]):
        attention.kernel = build(latent_attention(attention.layout, isa))
        found.append(attention(parts))
    assert np.array_equal(found[0], found[1])


def table_of(positions: np.ndarray, half: int) -> np.ndarray:
    angles = positions[:, None] * (1 / 10000 ** (np.arange(half) / half))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rotated(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    a, b = np.split(x.astype(np.float64), 2, axis=-1)
    cos, sin = (table[:, i].reshape(len(table), *[1] * (x.ndim - 2), -1) for i in range(2))
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float16", 4e-3), ("int16", 3e-4), ("int8", 0.52 / 127 * 8)]
)
def test_rows_go_to_their_slots(dtype: str, tolerance: float) -> None:
    layout = LatentLayout.of(SHAPE, 16, dtype)
    rng = np.random.default_rng(0)
    slots = np.array([3, 16 * 7 + 2, 50, 33, 9 * 16 + 15], np.int32)
    x = rng.standard_normal((5, 112), dtype=np.float32)
    weight = rng.standard_normal(64, dtype=np.float32)
    table = table_of(np.array([3, 0, 7, 1000, 5]), 16)
    pages = empty_latent_pages(layout, 10)
    before = pages.copy()
    build(append_latent(layout, 112, 1e-6))(x, weight, table, slots, pages)

    latent = x[:, :64].astype(np.float64)
    latent *= weight / np.sqrt((latent**2).mean(axis=1, keepdims=True) + 1e-6)
    expected = np.concatenate([latent, rotated(x[:, 64:96], table)], axis=1)
    for row, slot in zip(expected, slots, strict=True):
        view, untouched = (LatentView(layout, p[slot // 16]) for p in (pages, before))
        np.testing.assert_allclose(view.row(slot % 16), row, atol=tolerance)
        view.rows[slot % 16] = untouched.rows[slot % 16]
        if view.scales is not None and untouched.scales is not None:
            view.scales[:, slot % 16] = untouched.scales[:, slot % 16]
    assert pages.tobytes() == before.tobytes(), "slots beside the new ones were written"


def test_queries_are_split_scaled_and_rotated() -> None:
    x = np.random.default_rng(0).standard_normal((3, 6 * 80), dtype=np.float32)
    table = table_of(np.array([9, 0, 400]), 16)
    q, r = np.zeros((3, 6 * 48), np.float32), np.zeros((3, 6 * 32), np.float32)
    build(split_queries(SHAPE, 6 * 80, 0.25))(x, table, q, r)
    heads = x.reshape(3, 6, 80)
    np.testing.assert_array_equal(q.reshape(3, 6, 48), heads[..., :48] / 4)
    np.testing.assert_allclose(r.reshape(3, 6, 32), rotated(heads[..., 48:], table) / 4, atol=1e-6)


@pytest.mark.parametrize("fmt", [Format.F32, Format.F16, Format.Q8, Format.Q4])
def test_every_head_has_a_matrix_of_its_own(fmt: Format) -> None:
    rng = np.random.default_rng(0)
    heads, inputs, outputs = 3, 64, 48
    w = rng.standard_normal((heads * outputs, inputs), dtype=np.float32)
    stored = quantize(w, fmt) if fmt.grouped else w.astype(np.float16 if fmt is Format.F16 else np.float32)
    exact = (dequantize(stored) if fmt.grouped else stored).astype(np.float64).reshape(heads, outputs, inputs)
    kernel = build(linear_by_head(ByHeadSpec(fmt, heads, inputs, outputs), INSTRUCTION_SETS[-1]))
    for n in (1, 3, 9, 40):
        y = np.zeros((n, heads * outputs), np.float32)
        if fmt.grouped:
            q, s = random_activations(rng, n, heads * inputs)
            x = q.reshape(n, -1, 32) * s[:, :, :1].astype(np.float64)
            kernel(q, s, pack(stored, fmt), y)
        else:
            x = rng.standard_normal((n, heads * inputs), dtype=np.float32)
            kernel(x, pack(stored, fmt), y)
        expected = np.einsum("nhk,hok->nho", x.reshape(n, heads, inputs), exact)
        np.testing.assert_allclose(y.reshape(n, heads, outputs), expected, rtol=2e-5, atol=2e-4)
