"""A GGUF file with its matrices in another type, as llama.cpp's quantizer would write it without an importance matrix.

The `gguf` library rounds the simple types. The others need ggml's own code: `libggml-base.so` of a build of llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize, quantize

from cupola.quantize.formats import Format, Quantized
from cupola.quantize.rounding import dequantize as widen_groups
from cupola.quantize.rounding import quantize as round_to
from cupola.weights.gguf_blocks import KEPT_TYPES, quantized

Type = GGMLQuantizationType
SIMPLE_TYPES = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0)
GGML_TYPES = (Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL, Type.IQ4_XS)

# What llama.cpp takes in place of a type whose blocks of 256 do not divide a row.
_FALLBACKS = {
    Type.Q2_K: Type.Q4_0,
    Type.Q3_K: Type.Q4_0,
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
    Type.IQ4_XS: Type.IQ4_NL,
}
_OF_WRITER = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")


class Ggml:
    """ggml's quantizers, out of `libggml-base.so`."""

    def __init__(self, library: Path) -> None:
        pointer, long = ctypes.c_void_p, ctypes.c_int64
        self._quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
        self._quantize.argtypes = (ctypes.c_int, pointer, pointer, long, long, long, pointer)
        self._quantize.restype = ctypes.c_size_t

    def quantize(self, matrix: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
        """The blocks of float32 [rows, columns]: uint8 [rows, bytes]."""
        source = np.ascontiguousarray(matrix, np.float32)
        block, size = GGML_QUANT_SIZES[kind]
        rows, columns = source.shape
        out = np.zeros((rows, columns // block * size), np.uint8)
        written = self._quantize(kind, source.ctypes.data, out.ctypes.data, 0, rows, columns, None)
        if written != out.nbytes:
            raise ValueError(f"ggml wrote {written} bytes of {kind.name} where {out.nbytes} were expected")
        return out


def fitting(kind: GGMLQuantizationType, columns: int) -> GGMLQuantizationType:
    """`kind`, or what takes its place in rows that its blocks do not divide."""
    return kind if columns % GGML_QUANT_SIZES[kind][0] == 0 else _FALLBACKS[kind]


Encoding = tuple[np.ndarray, GGMLQuantizationType]  # blocks (or float32) of a matrix, and their type


def rewrite(source: Path, out: Path, encode: Callable[[str, np.ndarray], Encoding]) -> None:
    """Writes `source` with each matrix as `encode(name, float32 matrix)` says; vectors become float32."""
    reader = GGUFReader(source)
    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name not in _OF_WRITER:
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        blocks, kind = (values, Type.F32) if values.ndim == 1 else encode(tensor.name, values)
        writer.add_tensor(tensor.name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def requantize(
    source: Path,
    kind: GGMLQuantizationType,
    out: Path,
    ggml: Ggml | None = None,
    *,
    embeddings: GGMLQuantizationType = Type.Q8_0,
) -> float:
    """Writes `source` with every matrix of its layers as `kind`; embeddings and output become `embeddings`.

    Returns:
        The share of the layers' weights that are of that type, and not of its stand-in.
    """
    counts = {True: 0, False: 0}

    def encode(name: str, values: np.ndarray) -> Encoding:
        in_layer = _in_layer(name)
        chosen = fitting(kind if in_layer else embeddings, values.shape[1])
        if in_layer:
            counts[chosen == kind] += values.size
        return quantize(values, chosen) if ggml is None else ggml.quantize(values, chosen), chosen

    rewrite(source, out, encode)
    return counts[True] / sum(counts.values())


def write_layout_pair(source: Path, kind: GGMLQuantizationType, exact: Path, stored: Path, ggml: Ggml) -> None:
    """Two float32 files: with the layers as `kind` rounds them, and as Cupola stores weights of that type.

    Blocks go on from one row to the next, so that the type itself takes every layer whatever the width of its rows.
    """
    block = GGML_QUANT_SIZES[kind][0]

    def values_of(name: str, values: np.ndarray, store: bool) -> Encoding:
        if not _in_layer(name):
            return values, Type.F32
        blocks = ggml.quantize(values.reshape(-1, block), kind)
        rounded: Quantized | np.ndarray = dequantize(blocks, kind)
        if store:
            kept = kind in KEPT_TYPES
            rounded = quantized(blocks.reshape(-1), kind, len(blocks)) if kept else round_to(rounded, Format.Q8)
        wide = widen_groups(rounded) if isinstance(rounded, Quantized) else rounded
        return wide.reshape(values.shape), Type.F32

    rewrite(source, exact, lambda name, values: values_of(name, values, store=False))
    rewrite(source, stored, lambda name, values: values_of(name, values, store=True))


def _in_layer(name: str) -> bool:
    return name.startswith("blk.")
