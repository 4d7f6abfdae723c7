"""Packed layouts of weight matrices: the bytes that the kernels read.

Owns the order of bytes; how numbers are rounded is `rounding`'s business, and how kernels walk the bytes is theirs.

A matrix has N outputs and K inputs. Outputs come in blocks of 16 (N is padded with zeros), inputs in groups of 32
(K must be a multiple of 32 for q8, q4, q4s, q3 and mxfp4). Nb = ceil(N / 16), G = K / 32.

    f32   float32 [Nb, K, 16]
    f16   float16 [Nb, K, 16]
    bf16  uint16 [Nb, K, 16]   the upper halves of float32s (NumPy has no such type)
    q16   see `wide.py`
    q8    uint8 [Nb, G, 544]   16 float16 scales, then 8 steps s x 64 bytes:
                               byte o*4+j of s is the int8 of output o, input 32g+4s+j
    q4    uint8 [Nb, G, 320]   16 float16 scales, 16 float16 minima, then 4 steps s x 64 bytes:
                               byte o*4+j of s holds output o: input 32g+4s+j in the low nibble,
                               input 32g+16+4s+j in the high nibble; w = scale * q + minimum
    q4s   uint8 [Nb, G, 288]   16 float16 scales, then 4 steps as in q4; w = scale * (q - 8)
    q3    uint8 [Nb, G, 240]   16 float16 scales, 16 uint8 zeros, then 3 steps s x 64 bytes:
                               bits 0 to 2 of byte o*4+j of s are input 32g+4s+j of output o, bits 3 to 5 are
                               32g+16+4s+j. Bits 6 and 7 of the three bytes are the codes that would be step 3:
                               step 0 has the low bits of the first and step 1, bit 6, its high bit; step 2 has the low
                               bits of the second and step 1, bit 7, its high bit. w = scale * (q - zero / 32)
    mxfp4 uint8 [Nb, G, 272]   16 uint8 exponents, then 4 steps as in q4; for the numbers see `mxfp4.py`

Four inputs of sixteen outputs lie side by side because that is one vector of 64 bytes, or two of 32, of the processors'
integer multiply-and-add instructions.
"""

from __future__ import annotations

import numpy as np

from cupola.errors import ModelError
from cupola.quantize.floats import FLOAT_DTYPES, narrow, widen
from cupola.quantize.formats import GROUP, Format, Quantized
from cupola.quantize.rounding import dequantize, quantize, requantize
from cupola.quantize.wide import pack_q16, packed_shape_q16, unpack_q16

OUT_BLOCK = 16  # outputs of one block
LANE = 4  # neighbouring inputs of one output in a vector
SCALE_BYTES = 2 * OUT_BLOCK  # 16 float16
WORD = 4  # bytes of what the narrowest devices read


def codes_offset(fmt: Format) -> int:
    """Where the codes of one block and group begin, behind its scales (and minima)."""
    return scale_bytes(fmt) + {Format.Q4: SCALE_BYTES, Format.Q3: OUT_BLOCK}.get(fmt, 0)


def scale_bytes(fmt: Format) -> int:
    """The size of the scales of one block and group, with which they begin."""
    return OUT_BLOCK if fmt is Format.MXFP4 else SCALE_BYTES


def block_bytes(fmt: Format) -> int:
    """The size of one block and group of a group format."""
    bits = {Format.Q8: 8, Format.Q3: 3}.get(fmt, 4)
    return codes_offset(fmt) + OUT_BLOCK * GROUP * bits // 8


def packed_shape(fmt: Format, shape: tuple[int, int]) -> tuple[int, int, int]:
    """Shape of the packed array of an [N, K] matrix.

    Raises:
        ModelError: a group format with K not a multiple of 32.
    """
    rows, inputs = shape
    blocks = -(-rows // OUT_BLOCK)
    if not fmt.integer:
        return blocks, inputs, OUT_BLOCK
    if inputs % GROUP:
        raise ModelError(
            f"a matrix with {inputs} inputs cannot be stored as {fmt.value}: it needs a multiple of {GROUP}"
        )
    return packed_shape_q16(shape) if fmt is Format.Q16 else (blocks, inputs // GROUP, block_bytes(fmt))


def packed_dtype(fmt: Format) -> np.dtype:
    """Element type of the packed array."""
    return np.dtype(np.uint8) if fmt.integer else FLOAT_DTYPES[fmt]


def words_shape(fmt: Format, shape: tuple[int, int]) -> tuple[int, ...]:
    """The same shape in words of 32 bits, for devices that read nothing smaller. ModelError: as above."""
    *outer, last = packed_shape(fmt, shape)
    return (*outer, last * packed_dtype(fmt).itemsize // WORD)


def words_dtype(fmt: Format) -> np.dtype:
    """Element type of that array: float32, or uint32 for everything else."""
    return np.dtype(np.float32 if fmt is Format.F32 else np.uint32)


def pack(matrix: np.ndarray | Quantized, fmt: Format) -> np.ndarray:
    """Packs an [N, K] matrix, float or already quantized, as `fmt`.

    A quantized matrix of the same format keeps its integers, scales and minima bit for bit; for others see
    `rounding.requantize`. Floats are narrowed as `floats.narrow` says.

    Returns:
        A new array of `packed_shape(fmt, matrix.shape)` and `packed_dtype(fmt)`.

    Raises:
        ModelError: K does not suit the format, or values are not finite or beyond its range.
    """
    shape = matrix.shape
    packed_shape(fmt, shape)  # refuses an unsuitable K before any work
    if not fmt.grouped:
        floats = dequantize(matrix) if isinstance(matrix, Quantized) else matrix
        return pack_q16(floats) if fmt is Format.Q16 else _pack_floats(narrow(floats, fmt))
    matrix = requantize(matrix, fmt) if isinstance(matrix, Quantized) else quantize(matrix, fmt)
    out = np.empty(packed_shape(fmt, shape), np.uint8)
    blocks, groups, _ = out.shape
    out[..., : scale_bytes(fmt)] = _blocks_of_groups(matrix.scale)
    if matrix.minimum is not None:
        out[..., SCALE_BYTES : 2 * SCALE_BYTES] = _blocks_of_groups(matrix.minimum)
    if matrix.zero is not None:
        out[..., SCALE_BYTES : SCALE_BYTES + OUT_BLOCK] = _blocks_of_groups(matrix.zero)
    words = {Format.Q8: _words_q8, Format.Q3: _words_q3}.get(fmt, _words_q4)(matrix.values)
    out[..., codes_offset(fmt) :] = words.view(np.uint8).reshape(blocks, groups, -1)
    return out


def unpack(packed: np.ndarray, fmt: Format, shape: tuple[int, int]) -> np.ndarray:
    """The float32 [N, K] matrix that a packed array stands for."""
    rows, inputs = shape
    if fmt is Format.Q16:
        return unpack_q16(packed, shape)
    if not fmt.grouped:
        return widen(np.ascontiguousarray(packed.transpose(0, 2, 1)).reshape(-1, inputs)[:rows], fmt)
    return dequantize(unpack_quantized(packed, fmt, shape))


def unpack_quantized(packed: np.ndarray, fmt: Format, shape: tuple[int, int]) -> Quantized:
    """Integers, scales and minima of a packed matrix of a group format: the exact inverse of `pack`."""
    rows, inputs = shape
    blocks, groups, _ = packed.shape
    kind = np.uint8 if fmt is Format.MXFP4 else np.float16
    scale = _rows_of_groups(packed[..., : scale_bytes(fmt)], kind)[:rows]
    body = np.ascontiguousarray(packed[..., codes_offset(fmt) :])
    lanes = body.view(np.uint32).reshape(blocks, groups, -1, OUT_BLOCK)
    words = np.ascontiguousarray(lanes.transpose(0, 3, 1, 2))
    if fmt is Format.Q8:
        return Quantized(fmt, words.view(np.int8).reshape(-1, inputs)[:rows], scale)
    halves = _halves_q3(words) if fmt is Format.Q3 else (words & 0x0F0F0F0F, (words >> 4) & 0x0F0F0F0F)
    values = np.stack(halves, axis=-2).view(np.uint8).reshape(-1, inputs)[:rows]
    behind = packed[..., SCALE_BYTES : codes_offset(fmt)]
    minimum = _rows_of_groups(behind, np.float16)[:rows] if fmt is Format.Q4 else None
    zero = _rows_of_groups(behind, np.uint8)[:rows] if fmt is Format.Q3 else None
    return Quantized(fmt, values, scale, minimum, zero)


def _pack_floats(matrix: np.ndarray) -> np.ndarray:
    padded = _pad_rows(matrix)
    return np.ascontiguousarray(padded.reshape(-1, OUT_BLOCK, matrix.shape[1]).transpose(0, 2, 1))


def _words_q8(values: np.ndarray) -> np.ndarray:
    """uint32 [Nb, G, 8, 16]: one word is the four neighbouring inputs of a lane."""
    words = _pad_rows(values).view(np.uint32).reshape(-1, OUT_BLOCK, values.shape[1] // GROUP, GROUP // LANE)
    return np.ascontiguousarray(words.transpose(0, 2, 3, 1))


def _words_q4(values: np.ndarray) -> np.ndarray:
    """uint32 [Nb, G, 4, 16]: as in q8, the second half of a group's inputs in the upper nibbles of the first's."""
    first, second = _halves(values)
    nibbles = first | (second << 4)  # values are below 16, so no bit crosses into the next byte
    return np.ascontiguousarray(nibbles.transpose(0, 2, 3, 1))


def _words_q3(values: np.ndarray) -> np.ndarray:
    """uint32 [Nb, G, 3, 16]: two codes in the lower six bits, and a part of the last two in the upper ones."""
    first, second = _halves(values)
    words = first[..., :3] | (second[..., :3] << 3)
    low, high = first[..., 3], second[..., 3]
    words[..., 0] |= (low & 0x03030303) << 6
    words[..., 1] |= (low & 0x04040404) << 4 | (high & 0x04040404) << 5
    words[..., 2] |= (high & 0x03030303) << 6
    return np.ascontiguousarray(words.transpose(0, 2, 3, 1))


def _halves_q3(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint32 [..., 3] to the four steps of either half of a group: the inverse of `_words_q3`, output by output."""
    a, b, c = (words[..., step] for step in range(3))
    low = a >> 6 & 0x03030303 | b >> 4 & 0x04040404
    high = c >> 6 & 0x03030303 | b >> 5 & 0x04040404
    first, second = words & 0x07070707, words >> 3 & 0x07070707
    return np.concatenate([first, low[..., None]], axis=-1), np.concatenate([second, high[..., None]], axis=-1)


def _halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes as uint32 [Nb, 16, G, 4], one word the four neighbouring inputs of a lane: either half of the groups."""
    words = _pad_rows(values).view(np.uint32)
    words = words.reshape(-1, OUT_BLOCK, values.shape[1] // GROUP, 2, GROUP // LANE // 2)
    return words[..., 0, :], words[..., 1, :]


def _pad_rows(matrix: np.ndarray) -> np.ndarray:
    """The matrix, contiguous, with rows of zeros up to a whole block."""
    missing = -len(matrix) % OUT_BLOCK
    if not missing:
        return np.ascontiguousarray(matrix)
    return np.concatenate([matrix, np.zeros((missing, matrix.shape[1]), matrix.dtype)])


def _blocks_of_groups(per_group: np.ndarray) -> np.ndarray:
    """One number for each output and group, [N, G], to bytes [Nb, G, 16 numbers]."""
    padded = _pad_rows(per_group).reshape(-1, OUT_BLOCK, per_group.shape[1])
    return np.ascontiguousarray(padded.transpose(0, 2, 1)).view(np.uint8)


def _rows_of_groups(blocks: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """The inverse of `_blocks_of_groups`: [Nb*16, G]."""
    numbers = np.ascontiguousarray(blocks).view(dtype)
    return np.ascontiguousarray(numbers.transpose(0, 2, 1)).reshape(-1, blocks.shape[1])
