"""Attention of encoders against NumPy: ragged lengths, biases, rotation, windows, distances; no company shows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cupola.kernels.cpu.encoder_attention import EncoderAttentionSpec, encoder_attention
from cupola.kernels.cpu.isa import Isa
from kernels.kernel_driver import INSTRUCTION_SETS, TARGETS, build

HEADS, DIM = 3, 24
LENGTHS = (1, 7, 8, 9, 130, 40)
TOLERANCE = {"float32": 2e-6, "int16": 3e-4}


def turned(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """[n, H, D] with the first components rotated by cosines and sines [n, 2, half]."""
    half, (cos, sin) = table.shape[2], np.moveaxis(table[:, :, None, :], 1, 0)
    a, b = x[..., :half], x[..., half : 2 * half]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., 2 * half :]], axis=-1)


def exact(
    qkv: np.ndarray,
    indptr: np.ndarray,
    bias: np.ndarray,
    table: np.ndarray | None = None,
    window: int = 0,
    added: np.ndarray | None = None,
) -> np.ndarray:
    """`added`: [2 max - 1, H], of each distance."""
    q, k, v = np.split((qkv + bias).astype(np.float64).reshape(len(qkv), 3 * HEADS, DIM), 3, axis=1)
    if table is not None:
        q, k = turned(q, table), turned(k, table)
    out = np.empty((len(qkv), HEADS, DIM))
    for first, stop in itertools.pairwise(indptr):
        scores = np.einsum("ihd,jhd->hij", q[first:stop], k[first:stop]) * DIM**-0.5
        distance = np.arange(stop - first)[None, :] - np.arange(stop - first)[:, None]
        if added is not None:
            scores += np.moveaxis(added[distance + max(LENGTHS) - 1], -1, 0)
        if window:
            scores = np.where(np.abs(distance) <= window, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[first:stop] = np.einsum("hij,jhd->ihd", weights, v[first:stop])
    return out.reshape(len(qkv), -1)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=lambda isa: isa.name)
def test_every_token_sees_its_whole_sequence(isa: Isa, dtype: str) -> None:
    rng = np.random.default_rng(3)
    indptr = np.cumsum([0, *LENGTHS]).astype(np.int32)
    qkv = rng.standard_normal((indptr[-1], 3 * HEADS * DIM)).astype(np.float32)
    bias = rng.standard_normal(3 * HEADS * DIM).astype(np.float32)
    attend = build(encoder_attention(EncoderAttentionSpec(HEADS, DIM, max(LENGTHS), dtype), isa), TARGETS[isa])
    y = np.zeros((len(qkv), HEADS * DIM), np.float32)
    attend(qkv, indptr, bias, y)
    np.testing.assert_allclose(y, exact(qkv, indptr, bias), atol=TOLERANCE[dtype])
    for s, (first, stop) in enumerate(itertools.pairwise(indptr)):
        alone = np.zeros((LENGTHS[s], HEADS * DIM), np.float32)
        attend(qkv[first:stop].copy(), np.array([0, LENGTHS[s]], np.int32), bias, alone)
        np.testing.assert_array_equal(alone, y[first:stop])


@pytest.mark.parametrize("isa", INSTRUCTION_SETS[:1], ids=lambda isa: isa.name)
def test_rotation_windows_and_distances(isa: Isa) -> None:
    rng = np.random.default_rng(4)
    indptr = np.cumsum([0, *LENGTHS]).astype(np.int32)
    qkv = rng.standard_normal((indptr[-1], 3 * HEADS * DIM)).astype(np.float32)
    table = rng.uniform(-1, 1, (len(qkv), 2, 8)).astype(np.float32)
    bucket_of = rng.integers(0, 4, 2 * max(LENGTHS) - 1, np.int32)
    added = rng.standard_normal((4, HEADS)).astype(np.float32)
    spec = EncoderAttentionSpec(
        HEADS, DIM, max(LENGTHS), "float32", biased=False, rotary_dim=16, window=20, buckets=len(added)
    )
    y = np.zeros((len(qkv), HEADS * DIM), np.float32)
    build(encoder_attention(spec, isa), TARGETS[isa])(qkv, indptr, table, bucket_of, added, y)
    expected = exact(qkv, indptr, np.zeros(1), table, 20, added[bucket_of])
    np.testing.assert_allclose(y, expected, atol=TOLERANCE["float32"])
