"""Matrices and folders as other tools quantize them, packed here from their formats' specifications, one weight a step.

Nothing is shared with the readers in `cupola.weights`: what a code stands for is computed in float64, and words are put
together bit by bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tiny_models import TinyModel

AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # the nibble of a word in which the i-th of eight columns lies
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Integers:
    """A matrix of integers: w = scale * (code - zero), one scale and zero point for a group of each row's inputs."""

    codes: np.ndarray  # [N, K], from 0 on
    scale: np.ndarray  # [N, G] in the type of the file
    zero: np.ndarray  # [N, G]
    groups: np.ndarray  # [K]: the group of each input

    @property
    def numbers(self) -> np.ndarray:
        """float64 [N, K]"""
        return (self.codes - self.zero[:, self.groups]) * self.scale.astype(np.float64)[:, self.groups]


def integers(
    matrix: np.ndarray,
    bits: int,
    group: int,
    *,
    symmetric: bool,
    dtype: type = np.float16,
    order: np.ndarray | None = None,
) -> Integers:
    """Rounds a matrix to integers; `order`: the groups are made of the inputs in this order."""
    rows, inputs = matrix.shape
    groups = np.empty(inputs, np.int64)
    groups[np.arange(inputs) if order is None else order] = np.arange(inputs) // group
    top, count = (1 << bits) - 1, int(groups.max()) + 1
    scale, zero = np.empty((rows, count), dtype), np.empty((rows, count), np.int64)
    for g in range(count):
        part = matrix[:, groups == g]
        low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
        if symmetric:
            scale[:, g] = 2 * np.maximum(-low, high) / top
            zero[:, g] = 1 << (bits - 1)
        else:
            scale[:, g] = (high - low) / top
            zero[:, g] = np.clip(np.rint(-low / scale[:, g].astype(np.float64)), 0, top)
    wide = matrix / scale.astype(np.float64)[:, groups] + zero[:, groups]
    return Integers(np.clip(np.rint(wide), 0, top).astype(np.int64), scale, zero, groups)


def words(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [R, C] as int32 words along the columns, the first in the lowest bits; the last word is filled up."""
    each = 32 // bits
    result = np.zeros((codes.shape[0], -(-codes.shape[1] // each)), np.uint64)
    for column in range(codes.shape[1]):
        result[:, column // each] |= codes[:, column].astype(np.uint64) << np.uint64(bits * (column % each))
    return result.astype(np.uint32).view(np.int32)


def gptq(name: str, found: Integers, bits: int, *, version: int = 1) -> Tensors:
    """A layer as GPTQ tools store it; the first version subtracts 1 from zero points, and wraps round at 0."""
    zero = (found.zero - (1 if version == 1 else 0)) % (1 << bits)
    return {
        f"{name}.qweight": np.ascontiguousarray(words(np.ascontiguousarray(found.codes), bits).T),
        f"{name}.qzeros": words(np.ascontiguousarray(zero.T), bits),
        f"{name}.scales": np.ascontiguousarray(found.scale.T),
        f"{name}.g_idx": found.groups.astype(np.int32),
    }


def awq(name: str, found: Integers) -> Tensors:
    """A layer in AWQ's `gemm` layout."""

    def pack(codes: np.ndarray) -> np.ndarray:
        places = [8 * (column // 8) + AWQ_PLACES[column % 8] for column in range(codes.shape[1])]
        moved = np.empty_like(codes)
        moved[:, places] = codes
        return words(moved, 4)

    return {
        f"{name}.qweight": pack(np.ascontiguousarray(found.codes.T)),
        f"{name}.qzeros": pack(np.ascontiguousarray(found.zero.T)),
        f"{name}.scales": np.ascontiguousarray(found.scale.T),
    }


def packed(name: str, found: Integers, bits: int, *, symmetric: bool, ordered: bool = False) -> Tensors:
    """A layer as compressed-tensors' `pack-quantized`."""
    tensors = {
        f"{name}.weight_packed": words(found.codes, bits),
        f"{name}.weight_scale": found.scale,
        f"{name}.weight_shape": np.array(found.codes.shape, np.int64),
    }
    if not symmetric:
        zero = words(np.ascontiguousarray(found.zero.T), bits).T
        tensors[f"{name}.weight_zero_point"] = np.ascontiguousarray(zero)
    if ordered:
        tensors[f"{name}.weight_g_idx"] = found.groups.astype(np.int32)
    return tensors


def signed(name: str, found: Integers, *, symmetric: bool) -> Tensors:
    """A layer as compressed-tensors' `int-quantized`: int8, with zero points of the same type."""
    tensors = {
        f"{name}.weight": (found.codes - 128).astype(np.int8),
        f"{name}.weight_scale": found.scale,
    }
    if not symmetric:
        tensors[f"{name}.weight_zero_point"] = (found.zero - 128).astype(np.int8)
    return tensors


@dataclass(frozen=True)
class Float8:
    """A matrix of 8-bit floats with its scales, both as stored, and the numbers that they stand for."""

    values: np.ndarray
    scale: np.ndarray
    numbers: np.ndarray


def float8(matrix: np.ndarray, dtype: type, block: tuple[int, int] | None) -> Float8:
    """Rounds a matrix to 8-bit floats, a scale for each block; None: one for all."""
    high, wide = block or matrix.shape
    rows, inputs = matrix.shape
    scale = np.empty((-(-rows // high), -(-inputs // wide)), np.float32)
    values, numbers = np.empty(matrix.shape, dtype), np.empty(matrix.shape, np.float64)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            part = np.s_[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
            scale[i, j] = np.abs(matrix[part]).max() / float(ml_dtypes.finfo(dtype).max)
            values[part] = (matrix[part] / scale[i, j]).astype(dtype)
            numbers[part] = values[part].astype(np.float64) * np.float64(scale[i, j])
    return Float8(values, scale, numbers)


def save(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file; the library writes 8-bit floats, which it does not read."""
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)


Make = Callable[[str, np.ndarray], tuple[Tensors, np.ndarray]]  # (layer's name, matrix) -> (its tensors, its numbers)


@dataclass(frozen=True)
class FolderKind:
    """One way to quantize a folder.

    Args:
        config: its `quantization_config`.
        make: what becomes of a layer.
    """

    name: str
    config: Mapping[str, object]
    make: Make


def write_folder(path: Path, model: TinyModel, kind: FolderKind | None, weights: Tensors | None = None) -> Tensors:
    """Writes the tiny model with its linear layers quantized (but the head); None: floats.

    Args:
        weights: in place of the model's own.

    Returns:
        The float32 tensors that it stands for.
    """
    model.write(path)
    meant, tensors = {}, {}
    for name, matrix in (weights or model.weights()).items():
        if kind is None or not name.endswith("proj.weight"):
            meant[name], tensors[name] = matrix, matrix
        else:
            made, numbers = kind.make(name.removesuffix(".weight"), matrix)
            tensors |= made
            meant[name] = numbers.astype(np.float32)
    save(path / "model.safetensors", tensors)
    if kind is not None:
        config = {**model.config(), "quantization_config": dict(kind.config)}
        (path / "config.json").write_text(json.dumps(config))
    return meant
