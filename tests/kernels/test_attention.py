"""Attention over pages against float64, and bit for bit against itself on every road through the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cupola.kernels.cpu.attention import attention
from cupola.kernels.cpu.attention_step import BLOCK, AttentionSpec
from cupola.kernels.cpu.pages import HeadShape, PageLayout
from kernels.kernel_driver import INSTRUCTION_SETS, build
from kernels.paged import Pool, Rows, empty_pages, exact_attention, output_arguments, step_arguments

# Beside integers, the operands are rounded: queries to 15 bits of their norm, weights to 18 bits of their sum.
TOLERANCE = {"float32": 3e-6, "float16": 3e-6, "int16": 8e-4, "int8": 8e-4}
LENGTHS = (300, 17, 256, 530, 1)


def spec_of(heads: HeadShape, dtype: str, page_size: int = 16, **changes: object) -> AttentionSpec:
    return AttentionSpec(heads, PageLayout(heads, page_size, dtype), **changes)


SPECS = {
    "grouped": spec_of(HeadShape(9, 3, 64), "float16"),
    "one-query-to-a-key": spec_of(HeadShape(4, 4, 32), "float32"),
    "one-key-for-all": spec_of(HeadShape(8, 1, 128), "float16"),
    "odd-group": spec_of(HeadShape(7, 1, 80), "float16", page_size=32),
    "int16": spec_of(HeadShape(9, 3, 64), "int16"),
    "int16-wide": spec_of(HeadShape(4, 1, 256), "int16", page_size=32),
    "int16-everything": spec_of(HeadShape(8, 4, 80), "int16", page_size=8, window=70, soft_cap=2.0, sinks=True),
    "int8": spec_of(HeadShape(9, 3, 64), "int8"),
    "int8-small-pages": spec_of(HeadShape(4, 2, 112), "int8", page_size=8),
    "window": spec_of(HeadShape(6, 3, 48), "float32", window=100),
    "window-of-blocks": spec_of(HeadShape(4, 2, 96), "float16", page_size=64, window=2 * BLOCK),
    "cap": spec_of(HeadShape(4, 1, 256), "float16", soft_cap=1.5),
    "sinks": spec_of(HeadShape(8, 2, 64), "float16", sinks=True),
    "everything": spec_of(HeadShape(8, 4, 64), "int8", window=70, soft_cap=2.0, sinks=True),
}


class Attention:
    """One attention kernel with a pool of sequences and a query for each of their tokens."""

    def __init__(self, spec: AttentionSpec) -> None:
        self.spec, heads = spec, spec.heads
        self.pool = Pool(spec.pages, num_pages=1600 // spec.pages.page_size)
        self.sequences = [self.pool.add(length) for length in LENGTHS]
        rng = np.random.default_rng(1)
        self.queries = [rng.standard_normal((n, heads.queries, heads.dim)) * heads.dim**-0.5 for n in LENGTHS]
        self.queries = [q.astype(np.float32) for q in self.queries]
        self.sinks = np.linspace(-2, 4, heads.queries, dtype=np.float32)
        self.kernel: Callable[..., None] = build(attention(spec, INSTRUCTION_SETS[-1]))

    def rows(self, sequence: int, first: int, stop: int) -> Rows:
        return Rows(self.queries[sequence][first:stop], stop, self.sequences[sequence])

    def __call__(self, parts: Sequence[Rows], pages: np.ndarray | None = None) -> np.ndarray:
        q, *tables = step_arguments(self.spec.pages, parts)
        y, o, ml = output_arguments(self.spec, len(q), len(tables[2]), len(parts))
        pages = self.pool.pages if pages is None else pages
        self.kernel(q, pages, *tables, *([self.sinks] if self.spec.sinks else []), y, o, ml)
        return y.reshape(-1, self.spec.heads.queries, self.spec.heads.dim)


@pytest.fixture(scope="module", params=SPECS.values(), ids=list(SPECS))
def kernel(request: pytest.FixtureRequest) -> Attention:
    return Attention(request.param)


@pytest.fixture(scope="module")
def whole(kernel: Attention) -> list[np.ndarray]:
    """Every row of every sequence, computed in one step."""
    y = kernel([kernel.rows(s, 0, n) for s, n in enumerate(LENGTHS)])
    return np.split(y, np.cumsum(LENGTHS)[:-1])


def test_prefill_is_exact(kernel: Attention, whole: list[np.ndarray]) -> None:
    for s in range(len(LENGTHS)):
        expected = exact_attention(kernel.spec, kernel.queries[s], kernel.sequences[s], 0, kernel.sinks)
        np.testing.assert_allclose(whole[s], expected, atol=TOLERANCE[kernel.spec.pages.dtype])


def test_decodes_of_few_sequences_share_the_context_among_threads(kernel: Attention, whole: list[np.ndarray]) -> None:
    together = kernel([kernel.rows(s, n - 1, n) for s, n in enumerate(LENGTHS)])
    for s, n in enumerate(LENGTHS):
        assert np.array_equal(together[s], whole[s][-1])
        assert np.array_equal(kernel([kernel.rows(s, n - 1, n)])[0], whole[s][-1])


@pytest.mark.parametrize("first", [0, 210, 340])
def test_decodes_of_many_sequences(kernel: Attention, whole: list[np.ndarray], first: int) -> None:
    rows = range(first, first + 70)  # windows and contexts begin and end in the middle of blocks and at their edges
    together = kernel([kernel.rows(3, row, row + 1) for row in rows])
    assert np.array_equal(together, whole[3][first : first + 70])


def test_chunks_and_mixtures(kernel: Attention, whole: list[np.ndarray]) -> None:
    parts = [kernel.rows(3, 100, 331), kernel.rows(4, 0, 1), kernel.rows(1, 5, 17), kernel.rows(2, 255, 256)]
    y = kernel(parts)
    expected = [whole[3][100:331], whole[4], whole[1][5:17], whole[2][255:]]
    assert np.array_equal(y, np.concatenate(expected))


def test_pages_before_the_window_are_not_read(kernel: Attention, whole: list[np.ndarray]) -> None:
    """Skipped pages give the same bits as masked ones: those that a row of the tile before still sees."""
    size, length = kernel.spec.pages.page_size, LENGTHS[3]
    first = max(0, length - kernel.spec.window) // size if kernel.spec.window else 0
    pages = kernel.pool.pages.copy()
    pages[kernel.sequences[3].page_ids[:first]] = empty_pages(kernel.spec.pages, 1)
    assert np.array_equal(kernel([kernel.rows(3, length - 1, length)], pages)[0], whole[3][-1])
    chunk = kernel([kernel.rows(3, length - 1, length), kernel.rows(0, 0, 5)], pages)
    assert np.array_equal(chunk[0], whole[3][-1])
