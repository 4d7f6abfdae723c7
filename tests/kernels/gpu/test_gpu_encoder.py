"""Kernels of encoders on a GPU: attention in both directions against NumPy (ragged lengths, biases, rotation, windows,
distances), tables in 16 bits."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, build

from cupola.errors import UnsupportedError
from cupola.kernels.gpu import encoder_rows
from cupola.kernels.gpu.encoder_attention import EncoderAttention, encoder_attention, prepare
from cupola.kernels.gpu.norm import NormSpec
from cupola.quantize.formats import Format
from kernels.test_encoder_attention import DIM, HEADS, LENGTHS, exact

INDPTR = np.cumsum([0, *LENGTHS]).astype(np.int32)
SPEC = EncoderAttention(HEADS, DIM, max(LENGTHS), "float32", shared_bytes=16384)


@pytest.mark.parametrize("shared_bytes", [16384, 8192])
def test_a_tile_fits(shared_bytes: int) -> None:
    rows, tokens = EncoderAttention(4, 64, 512, "float32", shared_bytes).shape
    assert 4 * (rows * 64 + tokens * 65 + rows * tokens) < shared_bytes
    with pytest.raises(UnsupportedError, match=f"heads of 1024 components .* {shared_bytes} bytes"):
        _ = EncoderAttention(4, 1024, 512, "float32", shared_bytes).shape


class TestOnADevice:
    pytestmark = NEEDS_GPU

    def test_every_token_sees_its_whole_sequence(self) -> None:
        rng = np.random.default_rng(3)
        qkv = rng.standard_normal((INDPTR[-1], 3 * HEADS * DIM)).astype(np.float32)
        bias = rng.standard_normal(3 * HEADS * DIM).astype(np.float32)
        biased, y = np.full_like(qkv, np.nan), np.full((len(qkv), HEADS * DIM), np.nan, np.float32)
        build(prepare(HEADS, DIM, 0, True, "float32"))(qkv, bias, biased)
        build(encoder_attention(SPEC))(biased, INDPTR, y)
        np.testing.assert_allclose(y, exact(qkv, INDPTR, bias), atol=5e-6)

    def test_rotation_windows_and_distances(self) -> None:
        rng = np.random.default_rng(4)
        qkv = rng.standard_normal((INDPTR[-1], 3 * HEADS * DIM)).astype(np.float32)
        bias = rng.standard_normal(3 * HEADS * DIM).astype(np.float32)
        table = rng.uniform(-1, 1, (len(qkv), 2, 8)).astype(np.float32)
        bucket_of = rng.integers(0, 4, 2 * max(LENGTHS) - 1, np.int32)
        added = rng.standard_normal((4, HEADS)).astype(np.float32)
        turned, y = np.full_like(qkv, np.nan), np.full((len(qkv), HEADS * DIM), np.nan, np.float32)
        build(prepare(HEADS, DIM, 16, True, "float32"))(qkv, bias, table, turned)
        spec = EncoderAttention(HEADS, DIM, max(LENGTHS), "float32", 16384, window=20, buckets=4)
        build(encoder_attention(spec))(turned, INDPTR, bucket_of, added, y)
        np.testing.assert_allclose(y, exact(qkv, INDPTR, bias, table, 20, added[bucket_of]), atol=5e-6)

    def test_tables_in_sixteen_bits(self) -> None:
        rng, width = np.random.default_rng(5), 48
        words = rng.standard_normal((11, width)).astype(np.float16)
        places = rng.standard_normal((9, width)).astype(np.float32)
        weight, bias = rng.standard_normal((2, width)).astype(np.float32)
        ids, at = np.array([3, 10, 0], np.int32), np.array([0, 1, 6], np.int32)
        spec = encoder_rows.Embed(NormSpec(width, 1e-6, True, True), Format.F16, 11, 9, 0, 2, half=False)
        y = np.full((3, width), np.nan, np.float32)
        build(encoder_rows.embed(spec, 256))(ids, words.view(np.uint32), at, places, weight, bias, y)
        x = words[ids].astype(np.float64) + places[at + 2]
        x -= x.mean(axis=1, keepdims=True)
        expected = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-6) * weight + bias
        np.testing.assert_allclose(y, expected, atol=1e-5)
