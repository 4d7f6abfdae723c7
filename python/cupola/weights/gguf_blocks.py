"""The element types of GGUF: bytes of a tensor as floats, or as integers and scales that our formats keep.

Owns what the bits of a block mean. Types whose groups are 32 values with one scale (and one minimum), of integers that
fit a format, keep their integers; the `gguf` library widens all others to float32.

Types of Q4_K's kind hold their scales as products of a float16 and a small integer. Such a product is rounded to
float16, by 2^-11 of itself at most: two hundredths of the half step that the type itself is off. Types of five bits
with a minimum have no format of their own and become q8, in steps that are a part of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from cupola.errors import ModelError
from cupola.quantize.formats import GROUP, Q4S_ZERO, Format, Quantized
from cupola.quantize.mxfp4 import LARGEST
from cupola.quantize.rounding import without_minimum

FLOAT_TYPES = frozenset({GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16})
KEPT_TYPES: Mapping[GGMLQuantizationType, Format] = MappingProxyType(
    {
        GGMLQuantizationType.Q4_0: Format.Q4S,
        GGMLQuantizationType.Q4_1: Format.Q4,
        GGMLQuantizationType.Q4_K: Format.Q4,
        GGMLQuantizationType.Q3_K: Format.Q8,
        GGMLQuantizationType.Q5_0: Format.Q8,
        GGMLQuantizationType.Q5_1: Format.Q8,
        GGMLQuantizationType.Q5_K: Format.Q8,
        GGMLQuantizationType.Q8_0: Format.Q8,
        GGMLQuantizationType.IQ4_NL: Format.Q8,
        GGMLQuantizationType.IQ4_XS: Format.Q8,
        GGMLQuantizationType.TQ1_0: Format.Q4S,
        GGMLQuantizationType.TQ2_0: Format.Q4S,
        GGMLQuantizationType.Q1_0: Format.Q4S,
        GGMLQuantizationType.MXFP4: Format.MXFP4,
    }
)
# Of these, scales or minima are rounded to float16.
NEAR_TYPES = frozenset(GGMLQuantizationType[name] for name in ("Q4_K", "Q5_1", "Q5_K", "IQ4_XS"))
ROUNDED_TYPES = frozenset(
    GGMLQuantizationType[name]
    for name in (
        *("Q2_K", "Q6_K", "NVFP4"),
        *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    )
)
SUPPORTED_TYPES = FLOAT_TYPES | frozenset(KEPT_TYPES) | ROUNDED_TYPES

# The values for which the codes of IQ4_NL and IQ4_XS stand.
_NONLINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_GROUPS = 8  # of 32 values in a block of 256

# Of blocks uint8 [n, bytes]: values [groups, 32], scales and minima (or None), both [groups], not yet float16.
_Parts = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def floats(raw: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """float32 of whatever type, flat."""
    if kind is GGMLQuantizationType.F32:
        return raw.view("<f4")
    if kind is GGMLQuantizationType.F16:
        return raw.view("<f2").astype(np.float32)
    if kind is GGMLQuantizationType.BF16:
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind is GGMLQuantizationType.Q1_0:  # which the library knows by name and size alone
        values, scale, _ = _q1_0(raw.reshape(-1, GGML_QUANT_SIZES[kind][1]))
        signs = values.astype(np.float32) - Q4S_ZERO
        return (signs * scale.astype(np.float32)[:, None]).reshape(-1)
    result: np.ndarray = dequantize(raw.reshape(-1, GGML_QUANT_SIZES[kind][1]), kind)
    return result.reshape(-1)


def quantized(raw: np.ndarray, kind: GGMLQuantizationType, rows: int) -> Quantized:
    """The integers of one of `KEPT_TYPES`, with their scales and minima.

    Raises:
        ModelError: scales or minima are beyond the range of float16, or no numbers.
    """
    if kind is GGMLQuantizationType.MXFP4:
        return _mxfp4(raw, rows)
    values, scale, minimum = _READERS[kind](raw.reshape(-1, GGML_QUANT_SIZES[kind][1]))
    with np.errstate(over="ignore"):
        scale = scale.astype(np.float16)
        minimum = None if minimum is None else minimum.astype(np.float16)
    if not np.isfinite(scale).all() or not (minimum is None or np.isfinite(minimum).all()):
        raise ModelError(f"a {kind.name} tensor has scales or minima beyond the range of float16")
    return Quantized(
        KEPT_TYPES[kind],
        values.reshape(rows, -1),
        scale.reshape(rows, -1),
        None if minimum is None else minimum.reshape(rows, -1),
    )


def _mxfp4(raw: np.ndarray, rows: int) -> Quantized:
    """An exponent, then nibbles."""
    blocks = raw.reshape(-1, GGML_QUANT_SIZES[GGMLQuantizationType.MXFP4][1])
    exponents = blocks[:, 0].reshape(rows, -1)
    if exponents.max(initial=0) > LARGEST:
        raise ModelError("a MXFP4 tensor has a scale that is no number")
    return Quantized(Format.MXFP4, _nibbles(blocks[:, 1:]).reshape(rows, -1), exponents)


def _q4_0(blocks: np.ndarray) -> _Parts:
    """scale * (q - 8)"""
    return _nibbles(blocks[:, 2:]), _float16(blocks, 0), None


def _q4_1(blocks: np.ndarray) -> _Parts:
    return _nibbles(blocks[:, 4:]), _float16(blocks, 0), _float16(blocks, 2)


def _q3_k(blocks: np.ndarray) -> _Parts:
    """d * (scale * q) of 6-bit and 3-bit integers with a sign: their products are -124 to 128, and negated fit int8."""
    scale = -_float16(blocks, blocks.shape[1] - 2)
    step = np.where(scale == 0, 1, scale).astype(np.float32)[:, None]
    products = np.rint(dequantize(blocks, GGMLQuantizationType.Q3_K) / step)
    return products.astype(np.int8).reshape(-1, GROUP), np.repeat(scale, _GROUPS), None


def _q4_k(blocks: np.ndarray) -> _Parts:
    """d * scale * q - d_min * minimum, of 8 groups: their 6-bit scales and minima lie in 12 bytes.

    The first four groups have theirs in the lower 6 bits of 4 bytes each; the upper two bits of these bytes are those
    of the last four groups, whose lower four bits are the nibbles of the last 4 bytes.
    """
    return _nibbles(blocks[:, 16:].reshape(-1, GROUP)).reshape(-1, GROUP), *_products(blocks)


def _products(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and minima of the groups of Q4_K and Q5_K."""
    packed = blocks[:, 4:16].reshape(-1, 3, 4)
    first, low = packed[:, :2] & 63, np.stack([packed[:, 2] & 15, packed[:, 2] >> 4], axis=1)
    factors = np.concatenate([first, low | packed[:, :2] >> 6 << 4], axis=2).astype(np.float32)
    scale = factors[:, 0] * _float16(blocks, 0).astype(np.float32)[:, None]
    minimum = factors[:, 1] * -_float16(blocks, 2).astype(np.float32)[:, None]
    return scale.reshape(-1), minimum.reshape(-1)


def _q5_0(blocks: np.ndarray) -> _Parts:
    """scale * (q - 16); the fifth bits lie in 4 bytes before the others."""
    return _five_bits(blocks[:, 2:]).view(np.int8) - np.int8(16), _float16(blocks, 0), None


def _q5_1(blocks: np.ndarray) -> _Parts:
    factors = (_float16(blocks, at).astype(np.float32) for at in (0, 2))
    return *without_minimum(_five_bits(blocks[:, 4:]), *factors), None


def _q5_k(blocks: np.ndarray) -> _Parts:
    """As Q4_K; the fifth bits of group g are bits g of 32 bytes."""
    fifth = blocks[:, None, 16:48] >> np.arange(_GROUPS, dtype=np.uint8)[:, None] & 1
    codes = _nibbles(blocks[:, 48:].reshape(-1, GROUP)).reshape(-1, GROUP) | fifth.reshape(-1, GROUP) << 4
    return *without_minimum(codes, *_products(blocks)), None


def _q8_0(blocks: np.ndarray) -> _Parts:
    return np.ascontiguousarray(blocks[:, 2:]).view(np.int8), _float16(blocks, 0), None


def _iq4_nl(blocks: np.ndarray) -> _Parts:
    return _NONLINEAR[_nibbles(blocks[:, 2:])], _float16(blocks, 0), None


def _iq4_xs(blocks: np.ndarray) -> _Parts:
    """d * (scale - 32) * value, of 8 groups: the upper 2 bits of their scales in 2 bytes, the lower 4 in 4."""
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> np.arange(0, 2 * _GROUPS, 2, dtype=np.uint16) & 3
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, _GROUPS)
    factors = (low | high << 4).astype(np.float32) - 32
    scale = factors * _float16(blocks, 0).astype(np.float32)[:, None]
    return _NONLINEAR[_nibbles(blocks[:, 8:].reshape(-1, GROUP // 2))], scale.reshape(-1), None


def _ternary(kind: GGMLQuantizationType) -> Callable[[np.ndarray], _Parts]:
    """-1, 0 and 1 times one float16 for 256 values; the library knows how the digits lie."""

    def read(blocks: np.ndarray) -> _Parts:
        scale = _float16(blocks, blocks.shape[1] - 2)
        ones = blocks.copy()
        ones[:, -2:] = np.frombuffer(np.float16(1).tobytes(), np.uint8)
        codes = dequantize(ones, kind).astype(np.int8) + np.int8(Q4S_ZERO)
        return codes.astype(np.uint8).reshape(-1, GROUP), np.repeat(scale, _GROUPS), None

    return read


def _q1_0(blocks: np.ndarray) -> _Parts:
    """A float16 for 128 values, and a bit for each: set, it is the value, else its negative."""
    signs = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").reshape(-1, GROUP)
    return np.where(signs == 1, Q4S_ZERO + 1, Q4S_ZERO - 1).astype(np.uint8), np.repeat(_float16(blocks, 0), 4), None


def _five_bits(packed: np.ndarray) -> np.ndarray:
    """4 bytes of fifth bits, then nibbles."""
    return _nibbles(packed[:, 4:]) | np.unpackbits(packed[:, :4], axis=1, bitorder="little") << 4


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """The low nibbles of each row of bytes, then its high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _float16(blocks: np.ndarray, offset: int) -> np.ndarray:
    """The float16 of each block at this byte."""
    return np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<f2").reshape(-1)


_READERS: Mapping[GGMLQuantizationType, Callable[[np.ndarray], _Parts]] = MappingProxyType(
    {
        GGMLQuantizationType.Q4_0: _q4_0,
        GGMLQuantizationType.Q4_1: _q4_1,
        GGMLQuantizationType.Q3_K: _q3_k,
        GGMLQuantizationType.Q4_K: _q4_k,
        GGMLQuantizationType.Q5_0: _q5_0,
        GGMLQuantizationType.Q5_1: _q5_1,
        GGMLQuantizationType.Q5_K: _q5_k,
        GGMLQuantizationType.Q8_0: _q8_0,
        GGMLQuantizationType.IQ4_NL: _iq4_nl,
        GGMLQuantizationType.IQ4_XS: _iq4_xs,
        GGMLQuantizationType.TQ1_0: _ternary(GGMLQuantizationType.TQ1_0),
        GGMLQuantizationType.TQ2_0: _ternary(GGMLQuantizationType.TQ2_0),
        GGMLQuantizationType.Q1_0: _q1_0,
    }
)
