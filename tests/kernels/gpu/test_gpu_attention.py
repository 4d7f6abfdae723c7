"""Attention over pages on a GPU against float64: prompts by tiles, single rows by parts of their context."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build, store

from cupola.kernels.gpu import attention_spec
from cupola.kernels.gpu.attention import Attention, attention
from cupola.kernels.gpu.pages import GpuPages
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.heads import HeadShape

pytestmark = NEEDS_GPU
SHAPES = {  # few components and many heads; components that threads do not divide evenly; more components than threads
    "plain": Attention(GpuPages(HeadShape(6, 2, 16), 16, "float32"), Gpu(), "float32"),
    "all": Attention(GpuPages(HeadShape(5, 1, 80), 8, "float32"), Gpu(), "float32", 50, 3.0, sinks=True),
    "wide": Attention(GpuPages(HeadShape(2, 2, 192), 32, "float32"), Gpu(), "float32"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_tiles_and_parts(name: str) -> None:
    spec = SHAPES[name]
    kernel = build(attention(spec))
    for rows in ((1, 1, 1), (7, 1, 130)):
        _check(spec, kernel, lengths=(300, 17, 130), rows=rows)


def test_parts_of_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a step has much context: here, whoever has more than 256 tokens."""
    monkeypatch.setattr(attention_spec, "BLOCKS", 1)
    spec = SHAPES["plain"]
    _check(spec, build(attention(spec)), lengths=(900, 600, 20), rows=(1, 1, 1))


def _check(spec: Attention, kernel: object, lengths: tuple[int, ...], rows: tuple[int, ...]) -> None:
    rng, heads, layout = np.random.default_rng(0), spec.pages.heads, spec.pages
    counts = [-(-length // layout.page_size) for length in lengths]
    pages = np.full((sum(counts) + 1, layout.elements), np.nan, np.float32)
    ids = rng.permutation(sum(counts) + 1).astype(np.int32)
    ids = np.append(ids, ids[-1:].repeat(20))  # more of them than sequences use: of a page that has no numbers
    begins = np.cumsum([0, *counts]).astype(np.int32)
    indptr = np.cumsum([0, *rows]).astype(np.int32)
    q = rng.standard_normal((indptr[-1], heads.queries, heads.dim)).astype(np.float32) * heads.dim**-0.5
    sinks = rng.standard_normal(heads.queries).astype(np.float32)
    expected = []
    for s, length in enumerate(lengths):
        keys, values = rng.standard_normal((2, length, heads.keys, heads.dim)).astype(np.float32)
        for token in range(length):
            page = ids[begins[s] + token // layout.page_size]
            store(pages, layout, int(page) * layout.page_size + token % layout.page_size, keys[token], values[token])
        for i in range(rows[s]):
            seen = length - rows[s] + i + 1
            expected.append(exact(spec, q[indptr[s] + i], keys[:seen], values[:seen], sinks))
    y = np.full((indptr[-1], heads.queries * heads.dim), np.nan, np.float32)
    slots = int(spec.slots(len(ids), len(lengths)))
    partials = np.zeros((slots, heads.queries, heads.dim + 2), np.float32)
    arguments = [q.reshape(len(q), -1), pages, indptr, begins, ids, np.array(lengths, np.int32)]
    kernel(*arguments, *([sinks] if spec.sinks else []), y, partials)  # type: ignore[operator]
    np.testing.assert_allclose(y.reshape(len(y), heads.queries, -1), np.array(expected), atol=1e-5)


def exact(spec: Attention, q: np.ndarray, keys: np.ndarray, values: np.ndarray, sinks: np.ndarray) -> np.ndarray:
    """What one row sees: q [H, D] with keys and values [tokens up to its own, key heads, D]."""
    first = max(0, len(keys) - spec.window) if spec.window else 0
    k, v = (np.repeat(t[first:].astype(np.float64), spec.pages.heads.group, axis=1) for t in (keys, values))
    scores = np.einsum("hd,thd->ht", q, k)
    if spec.soft_cap:
        scores = spec.soft_cap * np.tanh(scores / spec.soft_cap)
    if spec.sinks:
        scores = np.concatenate([scores, sinks[:, None]], axis=1)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ht,thd->hd", weights[:, : len(k)], v)
