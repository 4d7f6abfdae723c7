"""KV pages and steps as NumPy sees them, for the tests of attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cupola.kernels.cpu.attention import split_slots
from cupola.kernels.cpu.attention_step import AttentionSpec
from cupola.kernels.cpu.pages import LARGEST_CODE, NORM, HeadShape, PageLayout


@dataclass(frozen=True)
class PagedSequence:
    """Keys and values [tokens, key heads, D] of one sequence, as its pages hold them."""

    keys: np.ndarray
    values: np.ndarray
    page_ids: np.ndarray


class PageView:
    """One page's parts: `codes` [key heads, 2, page_size * D] and, where the layout has them, `scales`
    [key heads, 2, page_size]."""

    def __init__(self, layout: PageLayout, page: np.ndarray) -> None:
        heads = page.reshape(layout.heads.keys, layout.head_elements)
        end = 2 * layout.page_size * layout.heads.dim
        self.codes = heads[:, :end].reshape(layout.heads.keys, 2, -1)
        self.scales = heads[:, end:].view(np.float32).reshape(layout.heads.keys, 2, -1) if layout.scaled else None
        self._layout = layout

    def key(self, token: int) -> np.ndarray:
        """The stored key of one token, [key heads, D]."""
        return self._of(0, token).reshape(len(self.codes), -1)

    def value(self, token: int) -> np.ndarray:
        """The stored value of one token, [key heads, D]."""
        return self._of(1, token)

    def put(self, kind: int, token: int, vector: np.ndarray) -> None:
        """Stores a key (kind 0) or a value (kind 1) [key heads, D]."""
        place = self._of(kind, token)
        place[...] = vector.reshape(place.shape)

    def _of(self, kind: int, token: int) -> np.ndarray:
        depth = self._layout.depth
        return self._values[:, token // depth, :, token % depth] if kind else self._keys[:, :, token]

    @property
    def _keys(self) -> np.ndarray:
        """[key heads, D / depth, tokens, depth]"""
        layout = self._layout
        return self.codes[:, 0].reshape(-1, layout.heads.dim // layout.depth, layout.page_size, layout.depth)

    @property
    def _values(self) -> np.ndarray:
        """[key heads, tokens / depth, D, depth]"""
        layout = self._layout
        return self.codes[:, 1].reshape(-1, layout.page_size // layout.depth, layout.heads.dim, layout.depth)


class Pool:
    """Pages whose unused slots are NaN (or have such a scale), so that whoever reads one is found out."""

    def __init__(self, layout: PageLayout, num_pages: int, seed: int = 0) -> None:
        self.layout, self.rng = layout, np.random.default_rng(seed)
        self.pages = empty_pages(layout, num_pages)
        self._free = list(self.rng.permutation(num_pages))

    def add(self, length: int) -> PagedSequence:
        heads, size = self.layout.heads, self.layout.page_size
        keys, values = (self.rng.standard_normal((length, heads.keys, heads.dim)) for _ in range(2))
        ids = np.array([self._free.pop() for _ in range(-(-length // size))], np.int32)
        for token in range(length):
            page = PageView(self.layout, self.pages[ids[token // size]])
            keys[token] = self._store(page, 0, token % size, keys[token])
            values[token] = self._store(page, 1, token % size, values[token])
        return PagedSequence(keys, values, ids)

    def _store(self, page: PageView, kind: int, token: int, vector: np.ndarray) -> np.ndarray:
        """Writes a key or a value, and returns what the page now holds."""
        dtype = self.layout.dtype
        if page.scales is None:
            page.put(kind, token, vector)
            return vector.astype(dtype).astype(np.float64)
        largest = np.abs(vector).max(axis=1) / LARGEST_CODE[dtype]
        by_norm = dtype == "int16" and kind == 0
        scale = (np.linalg.norm(vector, axis=1) / NORM if by_norm else largest).astype(np.float32)
        page.scales[:, kind, token] = scale
        codes = np.rint(vector / scale[:, None])
        page.put(kind, token, codes)
        return codes * scale[:, None].astype(np.float64)


def empty_pages(layout: PageLayout, num_pages: int) -> np.ndarray:
    """Pages without a token: NaN throughout, in int8 pages every scale."""
    if not layout.scaled:
        return np.full((num_pages, layout.elements), np.nan, layout.dtype)
    scales = layout.elements * np.dtype(layout.dtype).itemsize // 4
    return np.full((num_pages, scales), np.nan, np.float32).view(layout.dtype)


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


def output_arguments(spec: AttentionSpec, rows: int, pages: int, sequences: int) -> tuple[np.ndarray, ...]:
    """(y, o, ml), the results and working memory of a step."""
    heads = spec.heads
    slots = int(split_slots(pages, sequences, spec.block_pages))
    width = heads.queries * heads.dim
    return (
        np.zeros((rows, width), np.float32),
        np.zeros((slots, width), np.float32),
        np.zeros((slots, heads.queries, 2), np.float32),
    )


def exact_attention(
    spec: AttentionSpec, queries: np.ndarray, sequence: PagedSequence, first: int, sinks: np.ndarray
) -> np.ndarray:
    """Causal attention in float64 of rows at positions first, first + 1, ..."""
    heads: HeadShape = spec.heads
    keys, values = (np.repeat(t, heads.group, axis=1) for t in (sequence.keys, sequence.values))
    out = []
    for row, query in enumerate(queries.astype(np.float64)):
        stop = first + row + 1
        start = max(0, stop - spec.window) if spec.window else 0
        scores = np.einsum("hd,thd->ht", query, keys[start:stop])
        if spec.soft_cap:
            scores = spec.soft_cap * np.tanh(scores / spec.soft_cap)
        if spec.sinks:
            scores = np.concatenate([scores, sinks[:, None].astype(np.float64)], axis=1)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        out.append(np.einsum("ht,thd->hd", weights[:, : stop - start], values[start:stop]))
    return np.array(out)
