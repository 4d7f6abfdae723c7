"""Safetensors files as they are read: which tensors there are, and parts of them as NumPy arrays.

Owns the container: a length, a JSON header, the data. The `safetensors` library is not used for reading, because its
NumPy side refuses 8-bit floats, which checkpoints are published in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import ml_dtypes
import numpy as np

from cupola.errors import ModelError, UnsupportedError

_DTYPES: Mapping[str, np.dtype] = MappingProxyType(
    {
        "F64": np.dtype("<f8"),
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
        "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
        "I64": np.dtype("<i8"),
        "I32": np.dtype("<i4"),
        "I16": np.dtype("<i2"),
        "I8": np.dtype("i1"),
        "U32": np.dtype("<u4"),
        "U16": np.dtype("<u2"),
        "U8": np.dtype("u1"),
        "BOOL": np.dtype("?"),
    }
)
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
HINT_AGAIN = "Download the checkpoint again."


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: `dtype` as safetensors names it; `offset` in bytes from the start of `file`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsFiles:
    """The tensors of several files under their names.

    Raises (on construction):
        ModelError: a file is missing, truncated or no safetensors file.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        entries: dict[str, Entry] = {}
        for path in files:
            entries |= _read_header(path)
        self.entries: Mapping[str, Entry] = MappingProxyType(entries)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def dtype(self, name: str) -> str:
        return self.entries[name].dtype

    def read(self, name: str, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """A copy of a tensor, or of a part of it along its first two axes; a stack counts as one tall matrix.

        Raises:
            ModelError: the file cannot be read.
            UnsupportedError: the tensor is of a type that NumPy does not have.
        """
        entry = self.entries[name]
        if entry.dtype not in _DTYPES:
            raise UnsupportedError(
                f"tensor {name} in {entry.file} has the type {entry.dtype}",
                hint=f"Cupola reads {', '.join(FLOATS)}, and integers where it knows the quantization.",
            )
        if 0 in entry.shape:
            return np.zeros(entry.shape, _DTYPES[entry.dtype])
        try:
            # Mapped anew each time: a mapping counts as memory while it lives.
            data: np.ndarray = np.memmap(entry.file, _DTYPES[entry.dtype], "r", entry.offset, entry.shape)
        except (OSError, ValueError) as error:
            raise ModelError(f"{entry.file} cannot be read: {error}", hint=HINT_AGAIN) from error
        if data.ndim > 2:
            data = data.reshape(-1, entry.shape[-1])
        part = data[()] if data.ndim == 0 else data[rows] if data.ndim == 1 else data[rows, columns]
        return np.array(part)

    def read_floats(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Rows of a tensor of floats, as float32.

        Raises as `read`, and:
            UnsupportedError: the tensor holds integers.
        """
        entry = self.entries[name]
        if entry.dtype not in FLOATS:
            raise UnsupportedError(
                f"tensor {name} in {entry.file} has the type {entry.dtype}", hint=f"Cupola reads {', '.join(FLOATS)}."
            )
        return self.read(name, rows).astype(np.float32, copy=False)


def _read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file; that each lies within it proves that the file is whole."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise ModelError(f"{path} is truncated or damaged: its header is longer than it", hint=HINT_AGAIN)
            header = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing", hint=HINT_AGAIN) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint=HINT_AGAIN) from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise ModelError(f"{path} is truncated or damaged: its header is not JSON", hint=HINT_AGAIN) from error
    if not isinstance(header, dict):
        raise ModelError(f"{path} is truncated or damaged: its header is no object", hint=HINT_AGAIN)
    rest = {str(name): value for name, value in header.items() if name != "__metadata__"}
    return {name: _entry(path, name, value, 8 + length, size) for name, value in rest.items()}


def _entry(path: Path, name: str, value: object, base: int, size: int) -> Entry:
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if all(
            isinstance(extent, int) and extent >= 0 for extent in shape
        ):
            pass
        case _:
            raise ModelError(f"{path} is truncated or damaged: it describes tensor {name} as nothing", hint=HINT_AGAIN)
    needed = int(np.prod(shape, dtype=object)) * _DTYPES[dtype].itemsize if dtype in _DTYPES else end - begin
    if begin < 0 or end - begin != needed or base + end > size:
        raise ModelError(f"{path} is truncated or damaged: tensor {name} does not lie within it", hint=HINT_AGAIN)
    return Entry(path, dtype, tuple(shape), base + begin)
