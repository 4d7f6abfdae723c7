"""Weights for a folder that has none: a small random piece of each kind of matrix, again and again."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

from cupola.manifest import Manifest, Weight
from cupola.quantize.formats import Format
from cupola.quantize.layouts import OUT_BLOCK, pack
from cupola.weights.shards import ShardTensor, ShardWriter

_BLOCKS = 8  # of outputs in a piece
_WRITTEN = 1 << 24  # bytes at once


def write_weights(folder: Path, manifest: Manifest) -> None:
    """Writes the files that the manifest names, where they are not there. StorageError: the disk is full."""
    pieces: dict[tuple[str, int], np.ndarray] = {}
    for file, group in itertools.groupby(manifest.weights, key=lambda weight: weight.file):
        path, weights = folder / file, list(group)
        if path.exists():
            continue
        with ShardWriter(path, [ShardTensor(w.name, np.dtype(w.dtype), w.shape) for w in weights]) as writer:
            for weight in weights:
                key = (weight.format, math.prod(weight.shape[1:]))
                if key not in pieces:
                    pieces[key] = _piece(weight)
                for part in _repeated(pieces[key], weight.bytes):
                    writer.write(part)


def _piece(weight: Weight) -> np.ndarray:
    """Bytes of some blocks of outputs with a spread of 1 / sqrt(inputs); of a vector ones."""
    if weight.format == "vector":
        return np.ones(max(1, weight.bytes // 4), np.float32).view(np.uint8)
    fmt = Format(weight.format)
    inputs = weight.shape[1] * (32 if fmt.grouped else 1)
    values = np.random.default_rng(0).standard_normal((_BLOCKS * OUT_BLOCK, inputs), np.float32)
    return np.ascontiguousarray(pack(values / np.float32(math.sqrt(inputs)), fmt)).reshape(-1).view(np.uint8)


def _repeated(piece: np.ndarray, size: int) -> list[np.ndarray]:
    """Views of the piece, repeated, of `size` bytes together."""
    long = np.tile(piece, max(1, min(_WRITTEN, size) // len(piece)))
    return [long[: min(len(long), size - at)] for at in range(0, size, len(long))]
