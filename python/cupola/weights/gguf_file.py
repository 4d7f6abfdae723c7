"""The GGUF container: metadata, the table of tensors, and rows of one tensor as numbers.

Owns the file format; the meaning of keys and tensor names belongs to `gguf` (the checkpoint) and `gguf_tokenizer`, that
of the bytes of a tensor to `gguf_blocks`.

The `gguf` library supplies the constants. Its reader is not used: it makes an array object for each string of the
vocabulary (2 s and 150 MB for a vocabulary of 49 thousand tokens; this takes a fiftieth), and it cannot tell a
truncated file from a sound one.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

from cupola.errors import ModelError, UnsupportedError
from cupola.quantize.formats import Format, Quantized
from cupola.weights.checkpoint import Keeping
from cupola.weights.gguf_blocks import FLOAT_TYPES, KEPT_TYPES, NEAR_TYPES, SUPPORTED_TYPES, floats, quantized

Scalar = int | float | bool | str
Value = Scalar | list[str] | np.ndarray  # what an array of numbers becomes is a NumPy array

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_SCALARS: Mapping[int, np.dtype] = {
    GGUFValueType.UINT8: np.dtype("<u1"),
    GGUFValueType.INT8: np.dtype("<i1"),
    GGUFValueType.UINT16: np.dtype("<u2"),
    GGUFValueType.INT16: np.dtype("<i2"),
    GGUFValueType.UINT32: np.dtype("<u4"),
    GGUFValueType.INT32: np.dtype("<i4"),
    GGUFValueType.UINT64: np.dtype("<u8"),
    GGUFValueType.INT64: np.dtype("<i8"),
    GGUFValueType.FLOAT32: np.dtype("<f4"),
    GGUFValueType.FLOAT64: np.dtype("<f8"),
    GGUFValueType.BOOL: np.dtype("?"),
}
_MAX_DIMENSIONS = 4
_HINT_AGAIN = "Download or convert the file again."


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One row of the tensor table; `shape` has the outputs first, `offset` counts from the start of the file `path`."""

    path: Path
    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def rows(self) -> int:
        """A stack of matrices counts as one tall matrix."""
        return prod(self.shape[:-1]) if len(self.shape) > 2 else self.shape[0]

    @property
    def row_size(self) -> int:
        """Bytes of one row."""
        return self.size // max(self.rows, 1)

    @property
    def format(self) -> Format:
        """The format that keeps its integers; Q8 for block types of which no format does, F32 for floats."""
        if self.type in FLOAT_TYPES:
            return Format.F32
        return KEPT_TYPES.get(self.type, Format.Q8)

    @property
    def keeping(self) -> Keeping:
        """What becomes of its numbers in that format."""
        if self.type in FLOAT_TYPES:
            return Keeping.FLOATS
        if self.type not in KEPT_TYPES:
            return Keeping.ROUNDED
        return Keeping.INTEGERS if self.type in NEAR_TYPES else Keeping.EXACT


class GgufFile:
    """The header of a GGUF file, checked to be whole; tensor data stays on the disk until it is read.

    Raises (also on construction):
        ModelError: the file is missing, truncated or no GGUF file.
        UnsupportedError: a version, byte order or tensor type that Cupola does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if file.read(4) != MAGIC:
                    raise ModelError(f"{path} is not a GGUF file: it does not start with {MAGIC.decode()}")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    self.metadata, self.tensors, self.header_size = _Header(path, data).parse()
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}", hint="Check the path.") from error
        for tensor in self.tensors.values():
            if tensor.offset + tensor.size > self.size:
                raise ModelError(
                    f"{path} is truncated: tensor {tensor.name} ends at byte {tensor.offset + tensor.size}, "
                    f"but the file has {self.size}",
                    hint=_HINT_AGAIN,
                )

    def read_rows(self, name: str, start: int, stop: int, *, exact: bool = False) -> np.ndarray | Quantized:
        """Rows [start, stop) of a tensor: Quantized where one of our formats keeps its integers, else float32.

        `exact`: float32 throughout, as the scales of the file say before they are rounded to float16.
        """
        tensor = self.tensors[name]
        raw = self._read_bytes(tensor, start * tensor.row_size, (stop - start) * tensor.row_size)
        shape = (stop - start, *tensor.shape[1:][-1:])
        if tensor.type in KEPT_TYPES and len(shape) == 2 and not exact:
            return quantized(raw, tensor.type, shape[0])
        return floats(raw, tensor.type).reshape(shape)

    def _read_bytes(self, tensor: GgufTensor, offset: int, count: int) -> np.ndarray:
        data = np.empty(count, np.uint8)
        view = memoryview(data)  # type: ignore[arg-type]  # arrays are buffers; the stubs say so from 3.12 on
        try:
            with tensor.path.open("rb", buffering=0) as file:
                file.seek(tensor.offset + offset)
                while view and (got := file.readinto(view)):
                    view = view[got:]
        except OSError as error:
            raise ModelError(f"{tensor.path} cannot be read: {error.strerror}") from error
        if view:
            raise ModelError(f"{tensor.path} is truncated within tensor {tensor.name}", hint=_HINT_AGAIN)
        return data


class _Header:
    """A cursor over the header; every step checks that the file still has the bytes."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = len(MAGIC)

    def parse(self) -> tuple[dict[str, Value], dict[str, GgufTensor], int]:
        version = self._number("<I")
        if version not in VERSIONS:
            raise UnsupportedError(
                f"{self.path} has GGUF version {version}; Cupola reads versions {VERSIONS[0]} and {VERSIONS[1]}",
                hint="Convert the file again with a current converter, for a little-endian machine.",
            )
        num_tensors, num_keys = self._number("<Q"), self._number("<Q")
        metadata: dict[str, Value] = {}
        for _ in range(num_keys):
            key = self._text("a metadata key")
            metadata[key] = self._value(self._number("<I"), key)
        rows = [self._tensor_row() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0:
            raise ModelError(f"{self.path} has general.alignment {alignment!r}; a positive integer is needed")
        base = -(-self.at // alignment) * alignment
        tensors = {row[0]: self._tensor(base, *row) for row in rows}
        if len(tensors) != len(rows):
            raise ModelError(f"{self.path} names a tensor twice", hint=_HINT_AGAIN)
        return metadata, tensors, base

    def _take(self, count: int) -> int:
        """Moves over `count` bytes and returns where they start."""
        start = self.at
        if count > len(self.data) - start:
            raise ModelError(
                f"{self.path} is truncated: its header needs more than the {len(self.data)} bytes of the file",
                hint=_HINT_AGAIN,
            )
        self.at = start + count
        return start

    def _number(self, code: str) -> int:
        return int(struct.unpack_from(code, self.data, self._take(struct.calcsize(code)))[0])

    def _text(self, what: str) -> str:
        length = self._number("<Q")
        start = self._take(length)
        try:
            return self.data[start : self.at].decode()
        except UnicodeDecodeError as error:
            raise ModelError(f"{self.path} has {what} that is not UTF-8", hint=_HINT_AGAIN) from error

    def _value(self, code: int, key: str) -> Value:
        if code == GGUFValueType.STRING:
            return self._text(key)
        if code == GGUFValueType.ARRAY:
            return self._array(key)
        dtype = self._scalar_type(code, key)
        start = self._take(dtype.itemsize)
        scalar: Scalar = np.frombuffer(self.data, dtype, 1, start)[0].item()
        if dtype.kind == "f" and dtype.itemsize == 4:  # 1e-05 rather than 9.999999747378752e-06
            return float(str(np.float32(scalar)))
        return scalar

    def _array(self, key: str) -> Value:
        code, count = self._number("<I"), self._number("<Q")
        if code == GGUFValueType.STRING:
            return self._texts(count, key)
        dtype = self._scalar_type(code, key)
        start = self._take(count * dtype.itemsize)
        return np.frombuffer(self.data, dtype, count, start).copy()

    def _texts(self, count: int, key: str) -> list[str]:
        """Strings are by far the most of a header, so this loop does without the calls of `_text`."""
        unpack, data, at = struct.Struct("<Q").unpack_from, self.data, self.at
        limit, texts = len(data), []
        try:
            for _ in range(count):
                end = at + 8 + unpack(data, at)[0]
                if end > limit:
                    break
                texts.append(data[at + 8 : end].decode())
                at = end
        except struct.error:
            pass  # the file ended within a length: reported below
        except UnicodeDecodeError as error:
            raise ModelError(f"{self.path} has a string in {key} that is not UTF-8", hint=_HINT_AGAIN) from error
        if len(texts) < count:
            raise ModelError(f"{self.path} is truncated within the metadata {key}", hint=_HINT_AGAIN)
        self.at = at
        return texts

    def _scalar_type(self, code: int, key: str) -> np.dtype:
        try:
            return _SCALARS[code]
        except KeyError as error:
            raise UnsupportedError(f"{self.path} has metadata {key} of the unknown type {code}") from error

    def _tensor_row(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text("a tensor name")
        dimensions = self._number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise ModelError(f"{self.path} has tensor {name} with {dimensions} dimensions; at most 4 are allowed")
        shape = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
        return name, shape or (1,), self._number("<I"), self._number("<Q")

    def _tensor(self, base: int, name: str, shape: tuple[int, ...], code: int, offset: int) -> GgufTensor:
        try:
            kind = GGMLQuantizationType(code)
        except ValueError:
            kind = None
        if kind is None or kind not in SUPPORTED_TYPES:
            what = f"the unknown type {code}" if kind is None else f"the type {kind.name}"
            known = ", ".join(sorted(t.name for t in SUPPORTED_TYPES))
            raise UnsupportedError(
                f"{self.path} has tensor {name} of {what}", hint=f"Cupola reads the tensor types {known}."
            )
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if block > 1 and (len(shape) < 2 or shape[-1] % block):
            raise ModelError(
                f"{self.path} has tensor {name} of the shape {shape}; {kind.name} needs a matrix with rows of whole "
                f"blocks of {block}"
            )
        elements = 1
        for extent in shape:
            elements *= extent
        return GgufTensor(self.path, name, kind, shape, base + offset, elements // block * block_bytes)
