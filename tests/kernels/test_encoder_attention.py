"""Attention of encoders against NumPy: ragged lengths, biases, no company shows."""

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


def exact(qkv: np.ndarray, bias: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    q, k, v = np.split((qkv + bias).astype(np.float64).reshape(len(qkv), 3 * HEADS, DIM), 3, axis=1)
    out = np.empty((len(qkv), HEADS, DIM))
    for first, stop in itertools.pairwise(indptr):
        scores = np.einsum("ihd,jhd->hij", q[first:stop], k[first:stop]) * DIM**-0.5
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
    attend(qkv, bias, indptr, y)
    np.testing.assert_allclose(y, exact(qkv, bias, indptr), atol=TOLERANCE[dtype])
    for s, (first, stop) in enumerate(itertools.pairwise(indptr)):
        alone = np.zeros((LENGTHS[s], HEADS * DIM), np.float32)
        attend(qkv[first:stop].copy(), bias, np.array([0, LENGTHS[s]], np.int32), alone)
        np.testing.assert_array_equal(alone, y[first:stop])
