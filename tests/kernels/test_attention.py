"""Attention over pages against float64, and bit for bit against itself on every road through the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cupola.kernels.cpu.attention import AttentionSpec, attention
from cupola.kernels.cpu.pages import HeadShape, PageLayout
from kernels.kernel_driver import build
from kernels.paged import Pool, Rows, exact_attention, step_arguments

LENGTHS = (300, 17, 256, 530, 1)
SHAPES = [
    (HeadShape(9, 3, 64), "float16"),  # grouped
    (HeadShape(4, 4, 32), "float32"),  # one query head to a key head
    (HeadShape(8, 1, 128), "float16"),  # one key head for all
    (HeadShape(6, 3, 48), "float32"),
]


class Attention:
    """One attention kernel with a pool of sequences and a query for each of their tokens."""

    def __init__(self, heads: HeadShape, dtype: str) -> None:
        self.layout = PageLayout(heads, 16, dtype)
        self.pool = Pool(self.layout, num_pages=80)
        self.sequences = [self.pool.add(length) for length in LENGTHS]
        rng = np.random.default_rng(1)
        self.queries = [rng.standard_normal((n, heads.queries, heads.dim)) * heads.dim**-0.5 for n in LENGTHS]
        self.queries = [q.astype(np.float32) for q in self.queries]
        self.kernel: Callable[..., None] = build(attention(AttentionSpec(heads, self.layout)))

    def rows(self, sequence: int, first: int, stop: int) -> Rows:
        return Rows(self.queries[sequence][first:stop], stop, self.sequences[sequence])

    def __call__(self, parts: Sequence[Rows]) -> np.ndarray:
        heads = self.layout.heads
        q, *tables = step_arguments(self.layout, parts)
        slots = len(tables[2]) // 16 + len(parts)
        y = np.zeros_like(q)
        o, ml = np.zeros((slots, q.shape[1]), np.float32), np.zeros((slots, heads.queries, 2), np.float32)
        self.kernel(q, self.pool.pages, *tables, y, o, ml)
        return y.reshape(-1, heads.queries, heads.dim)


@pytest.fixture(scope="module", params=SHAPES, ids=lambda p: f"{p[0].queries}-{p[0].keys}-{p[0].dim}-{p[1]}")
def kernel(request: pytest.FixtureRequest) -> Attention:
    return Attention(*request.param)


@pytest.fixture(scope="module")
def whole(kernel: Attention) -> list[np.ndarray]:
    """Every row of every sequence, computed in one step."""
    y = kernel([kernel.rows(s, 0, n) for s, n in enumerate(LENGTHS)])
    return np.split(y, np.cumsum(LENGTHS)[:-1])


def test_prefill_is_exact(kernel: Attention, whole: list[np.ndarray]) -> None:
    for s in range(len(LENGTHS)):
        expected = exact_attention(kernel.layout.heads, kernel.queries[s], kernel.sequences[s], 0)
        np.testing.assert_allclose(whole[s], expected, atol=2e-6)


def test_decodes_of_few_sequences_share_the_context_among_threads(kernel: Attention, whole: list[np.ndarray]) -> None:
    together = kernel([kernel.rows(s, n - 1, n) for s, n in enumerate(LENGTHS)])
    for s, n in enumerate(LENGTHS):
        assert np.array_equal(together[s], whole[s][-1])
        assert np.array_equal(kernel([kernel.rows(s, n - 1, n)])[0], whole[s][-1])


def test_decodes_of_many_sequences(kernel: Attention, whole: list[np.ndarray]) -> None:
    rows = range(250, 290)
    together = kernel([kernel.rows(0, row, row + 1) for row in rows])
    assert np.array_equal(together, whole[0][250:290])


def test_chunks_and_mixtures(kernel: Attention, whole: list[np.ndarray]) -> None:
    parts = [kernel.rows(3, 100, 331), kernel.rows(4, 0, 1), kernel.rows(1, 5, 17), kernel.rows(2, 255, 256)]
    y = kernel(parts)
    expected = [whole[3][100:331], whole[4], whole[1][5:17], whole[2][255:]]
    assert np.array_equal(y, np.concatenate(expected))
