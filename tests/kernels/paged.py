"""KV pages and steps as NumPy sees them, for the tests of attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cupola.kernels.cpu.pages import HeadShape, PageLayout


@dataclass(frozen=True)
class PagedSequence:
    """Keys and values [tokens, key heads, D] of one sequence, and the pages that hold them."""

    keys: np.ndarray
    values: np.ndarray
    page_ids: np.ndarray


class Pool:
    """Pages whose unused slots are NaN, so that whoever reads one is found out."""

    def __init__(self, layout: PageLayout, num_pages: int, seed: int = 0) -> None:
        self.layout, self.rng = layout, np.random.default_rng(seed)
        self.pages = np.full((num_pages, layout.elements), np.nan, layout.dtype)
        self._free = list(self.rng.permutation(num_pages))

    def add(self, length: int) -> PagedSequence:
        heads, size = self.layout.heads, self.layout.page_size
        keys, values = (
            self.rng.standard_normal((length, heads.keys, heads.dim)).astype(self.layout.dtype) for _ in range(2)
        )
        ids = np.array([self._free.pop() for _ in range(-(-length // size))], np.int32)
        for token in range(length):
            page = self.pages[ids[token // size]].reshape(heads.keys, 2, size * heads.dim)
            page[:, 0].reshape(heads.keys, heads.dim, size)[:, :, token % size] = keys[token]
            page[:, 1].reshape(heads.keys, size, heads.dim)[:, token % size] = values[token]
        return PagedSequence(keys.astype(np.float64), values.astype(np.float64), ids)


@dataclass(frozen=True)
class Rows:
    """Some rows of queries [r, H, D] at the end of the first `length` tokens of a sequence."""

    queries: np.ndarray
    length: int
    sequence: PagedSequence


def step_arguments(layout: PageLayout, parts: Sequence[Rows]) -> tuple[np.ndarray, ...]:
    """(q, q_indptr, page_indptr, page_ids, kv_len) of a step of these rows."""
    width = layout.heads.queries * layout.heads.dim
    pages = [part.sequence.page_ids[: -(-part.length // layout.page_size)] for part in parts]
    return (
        np.concatenate([part.queries for part in parts]).reshape(-1, width).astype(np.float32),
        np.cumsum([0] + [len(part.queries) for part in parts]).astype(np.int32),
        np.cumsum([0] + [len(ids) for ids in pages]).astype(np.int32),
        np.concatenate(pages).astype(np.int32),
        np.array([part.length for part in parts], np.int32),
    )


def exact_attention(heads: HeadShape, queries: np.ndarray, sequence: PagedSequence, first: int) -> np.ndarray:
    """Causal attention in float64 of rows at positions first, first + 1, ..."""
    keys, values = (np.repeat(t, heads.group, axis=1) for t in (sequence.keys, sequence.values))
    out = []
    for row, query in enumerate(queries.astype(np.float64)):
        scores = np.einsum("hd,thd->ht", query, keys[: first + row + 1])
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        out.append(np.einsum("ht,thd->hd", weights, values[: first + row + 1]))
    return np.array(out)
