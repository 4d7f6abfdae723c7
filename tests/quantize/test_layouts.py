"""Packed layouts: each byte lies where the layout says, and nothing is lost on the way there and back."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from cupola.errors import ModelError
from cupola.quantize.formats import GROUP, Format, Quantized
from cupola.quantize.layouts import OUT_BLOCK, codes_offset, pack, packed_dtype, packed_shape, unpack, unpack_quantized
from cupola.quantize.rounding import dequantize, quantize

FLOATS = {Format.F32: np.float32, Format.F16: np.float16, Format.BF16: ml_dtypes.bfloat16}
GROUPED = [fmt for fmt in Format if fmt.grouped]
SHAPES = [(16, 32), (1, 32), (17, 96), (37, 64), (48, 160)]


def random_quantized(fmt: Format, shape: tuple[int, int]) -> Quantized:
    """Every possible integer, scale sign and padding case, without rounding."""
    random = np.random.default_rng(shape[0])
    per_group = (shape[0], shape[1] // GROUP)
    scale = random.standard_normal(per_group).astype(np.float16)
    if fmt is Format.Q8:
        return Quantized(fmt, random.integers(-128, 128, shape, dtype=np.int8), scale)
    if fmt is Format.Q3:
        zero = random.integers(0, 256, per_group, dtype=np.uint8)
        return Quantized(fmt, random.integers(0, 8, shape, dtype=np.uint8), scale, zero=zero)
    if fmt is Format.MXFP4:
        exponents = random.integers(0, 200, per_group, dtype=np.uint8)
        return Quantized(fmt, random.integers(0, 16, shape, dtype=np.uint8), exponents)
    minimum = random.standard_normal(per_group).astype(np.float16) if fmt is Format.Q4 else None
    return Quantized(fmt, random.integers(0, 16, shape, dtype=np.uint8), scale, minimum)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fmt", GROUPED)
def test_pack_keeps_every_bit(fmt: Format, shape: tuple[int, int]) -> None:
    matrix = random_quantized(fmt, shape)
    packed = pack(matrix, fmt)
    assert packed.shape == packed_shape(fmt, shape)
    assert packed.dtype == packed_dtype(fmt)
    back = unpack_quantized(packed, fmt, shape)
    np.testing.assert_array_equal(back.values, matrix.values)
    np.testing.assert_array_equal(back.scale, matrix.scale)
    np.testing.assert_array_equal(back.minimum, matrix.minimum)
    np.testing.assert_array_equal(back.zero, matrix.zero)
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


@pytest.mark.parametrize(("fmt", "first"), [(Format.Q4, 64), (Format.Q4S, 32), (Format.MXFP4, 16)])
def test_nibbles_lie_where_the_layout_says(fmt: Format, first: int) -> None:
    assert codes_offset(fmt) == first
    matrix = random_quantized(fmt, (21, 64))
    packed = pack(matrix, fmt)
    for n in range(21):
        block, output = n // OUT_BLOCK, n % OUT_BLOCK
        for k in range(64):
            group, high, step, lane = k // GROUP, k % GROUP // 16, k % 16 // 4, k % 4
            byte = packed[block, group, first + step * 64 + output * 4 + lane]
            assert (byte >> 4 if high else byte & 15) == matrix.values[n, k]
        scales = packed[block, :, :16] if first == 16 else packed[block, :, :32].copy().view(np.float16)
        assert (scales[:, n % OUT_BLOCK] == matrix.scale[n]).all()
        if matrix.minimum is not None:
            assert (packed[block, :, 32:64].copy().view(np.float16)[:, n % OUT_BLOCK] == matrix.minimum[n]).all()


def test_three_bits_lie_where_the_layout_says() -> None:
    matrix = random_quantized(Format.Q3, (21, 64))
    packed = pack(matrix, Format.Q3)
    assert codes_offset(Format.Q3) == 48
    assert packed.shape == (2, 2, 240)
    for n in range(21):
        block, output = n // OUT_BLOCK, n % OUT_BLOCK
        for k in range(64):
            group, high, step, lane = k // GROUP, k % GROUP // 16, k % 16 // 4, k % 4
            a, b, c = (int(packed[block, group, 48 + s * 64 + output * 4 + lane]) for s in range(3))
            if step < 3:
                code = (a, b, c)[step] >> 3 * high & 7
            else:  # what the others leave of their three bytes
                code = (c >> 6) + (b >> 7) * 4 if high else (a >> 6) + (b >> 6 & 1) * 4
            assert code == matrix.values[n, k]
        assert matrix.zero is not None
        assert (packed[block, :, 32 + output] == matrix.zero[n]).all()


@pytest.mark.parametrize("fmt", list(Format))
def test_padding_is_zero(fmt: Format) -> None:
    matrix = np.ones((17, 32), np.float32)
    whole = unpack(pack(matrix, fmt), fmt, (32, 32))
    assert (whole[17:] == 0).all()
    np.testing.assert_allclose(whole[:17], 1, rtol=1e-3)


@pytest.mark.parametrize("fmt", GROUPED)
def test_floats_are_quantized_as_they_are_packed(fmt: Format) -> None:
    matrix = np.random.default_rng(2).standard_normal((20, 64), dtype=np.float32)
    np.testing.assert_array_equal(unpack(pack(matrix, fmt), fmt, (20, 64)), dequantize(quantize(matrix, fmt)))


@pytest.mark.parametrize("fmt", [*FLOATS, Format.Q8, Format.Q4, Format.Q4S])
def test_symmetric_codes_are_exact_in_floats_and_groups(fmt: Format) -> None:
    symmetric = random_quantized(Format.Q4S, (16, 64))
    if fmt in (Format.F16, Format.BF16):  # these have fewer bits than the product of a code and a scale
        symmetric = replace(symmetric, scale=np.full_like(symmetric.scale, -0.25))
    exact = (symmetric.values.astype(np.float32) - 8) * np.repeat(symmetric.scale.astype(np.float32), GROUP, axis=1)
    np.testing.assert_array_equal(unpack(pack(symmetric, fmt), fmt, (16, 64)), exact)


def test_a_minimum_beyond_float16_is_rounded_anew() -> None:
    symmetric = replace(random_quantized(Format.Q4S, (1, 32)), scale=np.full((1, 1), 9000, np.float16))
    wide = dequantize(symmetric)
    assert (np.abs(unpack(pack(symmetric, Format.Q4), Format.Q4, (1, 32)) - wide) <= 9000).all()


def test_another_format_is_rounded_anew() -> None:
    four = random_quantized(Format.Q4, (16, 64))
    wide = dequantize(four)
    eight = unpack(pack(four, Format.Q8), Format.Q8, (16, 64))
    step = np.abs(wide).reshape(16, 2, 32).max(axis=2, keepdims=True) / 127
    assert (np.abs(eight - wide).reshape(16, 2, 32) <= step * 0.51).all()
    np.testing.assert_array_equal(unpack(pack(four, Format.F32), Format.F32, (16, 64)), wide)


@pytest.mark.parametrize("fmt", GROUPED)
def test_inputs_must_be_whole_groups(fmt: Format) -> None:
    with pytest.raises(ModelError, match="48 inputs"):
        pack(np.zeros((16, 48), np.float32), fmt)
