"""Pages of latents as NumPy sees them, for the tests of latent attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cupola.kernels.cpu.attention import split_slots
from cupola.kernels.cpu.attention_step import BLOCK
from cupola.kernels.cpu.latent_pages import LARGEST, LatentLayout


class LatentView:
    """One page's parts: `rows` [tokens, latent + rotary] and, where there are any, `scales` [2, tokens]."""

    def __init__(self, layout: LatentLayout, page: np.ndarray) -> None:
        size = layout.page_size
        self.rows = page[: size * layout.row].reshape(size, layout.row)
        self.scales = page[size * layout.row :].view(np.float32).reshape(2, size) if layout.scaled else None
        self._latent = layout.heads.dim

    def row(self, token: int) -> np.ndarray:
        """What is stored of a token: float64 [latent + rotary]."""
        row = self.rows[token].astype(np.float64)
        if self.scales is not None:
            row[: self._latent] *= self.scales[0, token]
            row[self._latent :] *= self.scales[1, token]
        return row

    def put(self, token: int, row: np.ndarray) -> None:
        """Stores a token."""
        if self.scales is None:
            self.rows[token] = row
            return
        parts = np.split(row, [self._latent])
        for kind, part in enumerate(parts):
            self.scales[kind, token] = np.abs(part).max() / LARGEST[str(self.rows.dtype)]
        codes = [np.rint(part / self.scales[kind, token]) for kind, part in enumerate(parts)]
        self.rows[token] = np.concatenate(codes)


def empty_latent_pages(layout: LatentLayout, num_pages: int) -> np.ndarray:
    """Pages without a token: NaN throughout, in scaled pages every scale."""
    if not layout.scaled:
        return np.full((num_pages, layout.elements), np.nan, layout.dtype)
    floats = layout.elements * np.dtype(layout.dtype).itemsize // 4
    return np.full((num_pages, floats), np.nan, np.float32).view(layout.dtype)


@dataclass(frozen=True)
class LatentSequence:
    """The rows [tokens, latent + rotary] of one sequence, as its pages hold them."""

    rows: np.ndarray
    page_ids: np.ndarray


class LatentPool:
    """Pages in a scrambled order, whose unused slots are NaN."""

    def __init__(self, layout: LatentLayout, num_pages: int) -> None:
        self.layout, self.rng = layout, np.random.default_rng(3)
        self.pages = empty_latent_pages(layout, num_pages)
        self._free = list(self.rng.permutation(num_pages))

    def add(self, length: int) -> LatentSequence:
        size = self.layout.page_size
        ids = np.array([self._free.pop() for _ in range(-(-length // size))], np.int32)
        rows = self.rng.standard_normal((length, self.layout.row)).astype(np.float32)
        stored = np.zeros(rows.shape)
        for token, row in enumerate(rows):
            view = LatentView(self.layout, self.pages[ids[token // size]])
            view.put(token % size, row)
            stored[token] = view.row(token % size)
        return LatentSequence(stored, ids)


@dataclass(frozen=True)
class LatentRows:
    """Queries (q, r) [rows, H, ...] at the end of the first `length` tokens of a sequence."""

    q: np.ndarray
    r: np.ndarray
    length: int
    sequence: LatentSequence


def latent_arguments(layout: LatentLayout, pages: np.ndarray, parts: Sequence[LatentRows]) -> tuple[np.ndarray, ...]:
    """All arguments of the kernel, results and working memory last."""
    tables = [part.sequence.page_ids[: -(-part.length // layout.page_size)] for part in parts]
    q, r = (np.concatenate([getattr(part, name) for part in parts]) for name in ("q", "r"))
    count, heads = len(q), layout.heads
    width, total = heads.queries * heads.dim, sum(map(len, tables))
    slots = int(split_slots(total, len(parts), BLOCK // layout.page_size))
    return (
        q.reshape(count, -1),
        r.reshape(count, -1),
        pages,
        np.cumsum([0, *(len(part.q) for part in parts)]).astype(np.int32),
        np.cumsum([0, *map(len, tables)]).astype(np.int32),
        np.concatenate(tables).astype(np.int32),
        np.array([part.length for part in parts], np.int32),
        np.zeros((count, width), np.float32),
        np.zeros((slots, width), np.float32),
        np.zeros((slots, heads.queries, 2), np.float32),
    )


def exact_latent_attention(layout: LatentLayout, q: np.ndarray, r: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Causal attention in float64 of queries at positions 0, 1, ...: [tokens, H, latent]."""
    latent = layout.heads.dim
    scores = np.einsum("nhc,tc->nht", np.concatenate([q, r], axis=2).astype(np.float64), rows)
    later = np.arange(len(rows)) > np.arange(len(q))[:, None]
    scores = np.where(later[:, None], -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.einsum("nht,tc->nhc", weights / weights.sum(axis=2, keepdims=True), rows[:, :latent])
