"""Packed layouts: each byte lies where the layout says, and nothing is lost on the way there and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cupola.errors import ModelError
from cupola.quantize.formats import GROUP, Format, Quantized
from cupola.quantize.layouts import OUT_BLOCK, pack, packed_dtype, packed_shape, unpack, unpack_quantized
from cupola.quantize.rounding import dequantize, quantize

FLOATS = {Format.F32: np.float32, Format.F16: np.float16, Format.BF16: ml_dtypes.bfloat16}
SHAPES = [(16, 32), (1, 32), (17, 96), (37, 64), (48, 160)]


def random_quantized(fmt: Format, shape: tuple[int, int]) -> Quantized:
    """Every possible integer, scale sign and padding case, without rounding."""
    random = np.random.default_rng(shape[0])
    per_group = (shape[0], shape[1] // GROUP)
    scale = random.standard_normal(per_group).astype(np.float16)
    if fmt is Format.Q8:
        return Quantized(fmt, random.integers(-128, 128, shape, dtype=np.int8), scale)
    minimum = random.standard_normal(per_group).astype(np.float16)
    return Quantized(fmt, random.integers(0, 16, shape, dtype=np.uint8), scale, minimum)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fmt", [Format.Q8, Format.Q4])
def test_pack_keeps_every_bit(fmt: Format, shape: tuple[int, int]) -> None:
    matrix = random_quantized(fmt, shape)
    packed = pack(matrix, fmt)
    assert packed.shape == packed_shape(fmt, shape)
    assert packed.dtype == packed_dtype(fmt)
    back = unpack_quantized(packed, fmt, shape)
    np.testing.assert_array_equal(back.values, matrix.values)
    np.testing.assert_array_equal(back.scale, matrix.scale)
    if matrix.minimum is not None:
        np.testing.assert_array_equal(back.minimum, matrix.minimum)
    np.testing.assert_array_equal(unpack(packed, fmt, shape), dequantize(matrix))


@pytest.mark.parametrize("shape", [(16, 32), (5, 7), (33, 50)])
@pytest.mark.parametrize(("fmt", "dtype"), FLOATS.items())
def test_floats_keep_every_bit(fmt: Format, dtype: type, shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    packed = pack(matrix.astype(np.float32), fmt)
    assert (packed.shape, packed.dtype) == (packed_shape(fmt, shape), packed_dtype(fmt))
    for n, k in ((2, 3), (shape[0] - 1, shape[1] - 1)):
        assert packed[n // OUT_BLOCK, k, n % OUT_BLOCK].tobytes() == matrix[n, k].tobytes()
    np.testing.assert_array_equal(unpack(packed, fmt, shape), matrix.astype(np.float32))


def test_q8_bytes_lie_where_the_layout_says() -> None:
    matrix = random_quantized(Format.Q8, (37, 96))
    packed = pack(matrix, Format.Q8)
    for n in range(37):
        block, output = n // OUT_BLOCK, n % OUT_BLOCK
        for k in range(96):
            group, step, lane = k // GROUP, k % GROUP // 4, k % 4
            at = 32 + step * 64 + output * 4 + lane
            assert packed[block, group, at].view(np.int8) == matrix.values[n, k]
        assert (packed[block, :, :32].copy().view(np.float16)[:, n % OUT_BLOCK] == matrix.scale[n]).all()


def test_q4_nibbles_lie_where_the_layout_says() -> None:
    matrix = random_quantized(Format.Q4, (21, 64))
    assert matrix.minimum is not None
    packed = pack(matrix, Format.Q4)
    for n in range(21):
        block, output = n // OUT_BLOCK, n % OUT_BLOCK
        for k in range(64):
            group, high, step, lane = k // GROUP, k % GROUP // 16, k % 16 // 4, k % 4
            byte = packed[block, group, 64 + step * 64 + output * 4 + lane]
            assert (byte >> 4 if high else byte & 15) == matrix.values[n, k]
        assert (packed[block, :, :32].copy().view(np.float16)[:, n % OUT_BLOCK] == matrix.scale[n]).all()
        assert (packed[block, :, 32:64].copy().view(np.float16)[:, n % OUT_BLOCK] == matrix.minimum[n]).all()


@pytest.mark.parametrize("fmt", list(Format))
def test_padding_is_zero(fmt: Format) -> None:
    matrix = np.ones((17, 32), np.float32)
    whole = unpack(pack(matrix, fmt), fmt, (32, 32))
    assert (whole[17:] == 0).all()
    np.testing.assert_allclose(whole[:17], 1, rtol=1e-3)


@pytest.mark.parametrize("fmt", [Format.Q8, Format.Q4])
def test_floats_are_quantized_as_they_are_packed(fmt: Format) -> None:
    matrix = np.random.default_rng(2).standard_normal((20, 64), dtype=np.float32)
    np.testing.assert_array_equal(unpack(pack(matrix, fmt), fmt, (20, 64)), dequantize(quantize(matrix, fmt)))


def test_another_format_is_rounded_anew() -> None:
    four = random_quantized(Format.Q4, (16, 64))
    wide = dequantize(four)
    eight = unpack(pack(four, Format.Q8), Format.Q8, (16, 64))
    step = np.abs(wide).reshape(16, 2, 32).max(axis=2, keepdims=True) / 127
    assert (np.abs(eight - wide).reshape(16, 2, 32) <= step * 0.51).all()
    np.testing.assert_array_equal(unpack(pack(four, Format.F32), Format.F32, (16, 64)), wide)


@pytest.mark.parametrize("fmt", [Format.Q8, Format.Q4])
def test_inputs_must_be_whole_groups(fmt: Format) -> None:
    with pytest.raises(ModelError, match="48 inputs"):
        pack(np.zeros((16, 48), np.float32), fmt)
