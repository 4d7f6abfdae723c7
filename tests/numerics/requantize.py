"""A GGUF file with its matrices in another type, as llama.cpp's quantizer would write it without an importance matrix.

The `gguf` library rounds the simple types. The others need ggml's own code: `libggml-base.so` of a build of llama.cpp.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize, quantize

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


def requantize(source: Path, kind: GGMLQuantizationType, out: Path, ggml: Ggml | None = None) -> float:
    """Writes `source` with every matrix of its layers as `kind`; embeddings and output become Q8_0.

    Returns:
        The share of the layers' weights that are of that type, and not of its stand-in.
    """
    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(out, architecture)
    for field in reader.fields.values():
        if field.name not in _OF_WRITER:
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    wanted = total = 0
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values)
            continue
        in_layer = tensor.name.startswith("blk.")
        chosen = fitting(kind if in_layer else Type.Q8_0, values.shape[1])
        wanted += values.size * (in_layer and chosen == kind)
        total += values.size * in_layer
        blocks = quantize(values, chosen) if ggml is None else ggml.quantize(values, chosen)
        writer.add_tensor(tensor.name, blocks, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return wanted / total
