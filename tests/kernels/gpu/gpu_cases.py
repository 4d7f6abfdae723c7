"""Kernels of `kernels/gpu` built as the product builds them, and their arguments, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import tvm
from tvm import tirx

from cupola.compiler import pipeline
from cupola.compiler.cuda import source_only
from cupola.kernels.gpu.pages import GpuPages
from cupola.quantize.formats import Format
from cupola.quantize.layouts import pack, unpack, words_dtype
from gpu.driver import loaded, target_of, to_device
from gpu.kinds import KINDS

Kernel = Callable[..., None]


NEEDS_GPU = pytest.mark.gpu


class Executing:
    """The kind of device that `build` builds for, which the fixture `executing` of this folder sets."""

    kind: ClassVar[str] = KINDS[0]


def compiled(function: tirx.PrimFunc, target: tvm.target.Target) -> tvm.runtime.Module:
    """One kernel, through the product's own passes."""
    pipeline.register()
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    with target, source_only():
        return tirx.build(module, target=target, pipeline=pipeline.GPU_PIPELINE)


def source(module: tvm.runtime.Module) -> str:
    """The code of the device."""
    parts = [module.inspect_source()] if module.kind != "llvm" else []
    return "\n".join([*parts, *(source(imported) for imported in module.imports)])


def build(function: tirx.PrimFunc) -> Kernel:
    """The kernel for the device that is tested; it writes into the arrays that it is called with."""
    kind = Executing.kind
    kernel = loaded(compiled(function, target_of(kind)), kind)["kernel"]

    def call(*arrays: np.ndarray) -> None:
        tensors = [to_device(array, kind) for array in arrays]
        kernel(*tensors)
        for array, tensor in zip(arrays, tensors, strict=True):
            array[...] = tensor.numpy()

    return call


def packed(fmt: Format, rows: int, inputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(a random matrix packed in words, what it stands for)."""
    matrix = np.random.default_rng(seed).standard_normal((rows, inputs)).astype(np.float32)
    stored = np.ascontiguousarray(pack(matrix, fmt))
    return stored.view(words_dtype(fmt)), unpack(stored, fmt, matrix.shape)


def store(pages: np.ndarray, layout: GpuPages, slot: int, keys: np.ndarray, values: np.ndarray) -> None:
    """Writes keys and values [key heads, D] of one token."""
    page, token = divmod(slot, layout.page_size)
    dim, size = layout.heads.dim, layout.page_size
    halves = pages[page].reshape(layout.heads.keys, 2, -1)
    halves[:, 0].reshape(-1, dim, size)[:, :, token] = keys
    halves[:, 1].reshape(-1, size, dim)[:, token] = values
