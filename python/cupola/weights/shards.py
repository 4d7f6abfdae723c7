"""Safetensors files written front to back, every tensor at a multiple of 64 bytes.

Owns the file format: a length, a JSON header padded with spaces, the data. Safetensors allows no holes in the data, so
the bytes between one tensor's end and the next multiple of 64 belong to filler tensors named `_fill.N`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from cupola.errors import ModelError
from cupola.weights.storage import storage_error

ALIGNMENT = 64  # one cache line, and the widest vector register
SHARD_BYTES = 1 << 30
_DTYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(np.uint32): "U32",
    np.dtype(np.uint16): "U16",
    np.dtype(np.uint8): "U8",
}


@dataclass(frozen=True, slots=True)
class ShardTensor:
    """A tensor to be written."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        size = self.dtype.itemsize
        for extent in self.shape:
            size *= extent
        return size


def split(tensors: Iterable[ShardTensor], limit: int = SHARD_BYTES) -> list[list[ShardTensor]]:
    """Consecutive runs of at most `limit` bytes each; a tensor larger than that is alone."""
    shards: list[list[ShardTensor]] = []
    room = 0
    for tensor in tensors:
        if not shards or tensor.size > room:
            shards.append([])
            room = limit
        shards[-1].append(tensor)
        room -= _aligned(tensor.size)
    return shards


class ShardWriter:
    """Writes one file: `begin` for each tensor in the order announced, then `write` until it is complete.

    As a context manager it removes the file unless everything was written. The space is claimed at once, so that a
    full disk is found before the work and not after it.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path, tensors: Sequence[ShardTensor]) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        header, self._fills = _header(tensors)
        self._tensors = tensors
        self._next = 0
        self._missing = 0
        try:
            self._file: BinaryIO = self._part.open("wb")
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            total = len(header) + sum(t.size for t in tensors) + sum(self._fills)
            if hasattr(os, "posix_fallocate"):  # Linux has it, macOS does not
                os.posix_fallocate(self._file.fileno(), 0, total)
            self._file.write(header)
        except OSError as error:
            self._discard()
            raise storage_error(path, error) from error

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        if self._missing or self._next < len(self._tensors):
            self._discard()
            raise ModelError(f"{self.path} was closed before all its tensors were written")
        try:
            self._file.close()
            self._part.replace(self.path)
        except OSError as os_error:
            self._discard()
            raise storage_error(self.path, os_error) from os_error

    def write(self, data: np.ndarray) -> None:
        """Appends whole rows of the current tensor, and its filler once it is complete."""
        if not self._missing:
            self._missing = self._tensors[self._next].size
        if data.nbytes > self._missing:
            raise ModelError(f"{self._tensors[self._next].name} is larger than was announced")
        try:
            self._file.write(np.ascontiguousarray(data).data)
            self._missing -= data.nbytes
            if not self._missing:
                self._file.write(bytes(self._fills[self._next]))
                self._next += 1
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _discard(self) -> None:
        with contextlib.suppress(OSError):  # the buffered rest does not matter: the file goes
            self._file.close()
        self._part.unlink(missing_ok=True)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _header(tensors: Sequence[ShardTensor]) -> tuple[bytes, list[int]]:
    """Length and header, padded so that the data starts aligned; and the filler behind each tensor."""
    entries: dict[str, dict[str, object]] = {}
    fills = [_aligned(tensor.size) - tensor.size for tensor in tensors]
    at = 0
    for i, (tensor, fill) in enumerate(zip(tensors, fills, strict=True)):
        entries[tensor.name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.size],
        }
        at += tensor.size
        if fill:
            entries[f"_fill.{i}"] = {"dtype": "U8", "shape": [fill], "data_offsets": [at, at + fill]}
            at += fill
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (_aligned(len(text) + 8) - len(text) - 8)
    return len(text).to_bytes(8, "little") + text, fills
