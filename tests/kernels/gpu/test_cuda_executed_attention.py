"""CUDA's attention as the product chooses it, executed by the interpreter of PTX, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import test_gpu_attention_units as units
import test_gpu_latent_units as latents
from cuda_executed import LARGE, NEEDS_NVCC, Executed, floats, gpu, stored
from gpu_cases import Kernel

from cupola.kernels.gpu import attention_spec
from cupola.kernels.gpu.attention import Attention, attention
from cupola.kernels.gpu.attention_latent import fits_units
from cupola.kernels.gpu.pages import GpuPages, LatentPages, MatrixPages, pages_for_units
from cupola.kernels.gpu.trait import STORED
from cupola.kernels.heads import HeadShape
from cupola.kernels.latent_shape import LatentShape

pytestmark = NEEDS_NVCC
# Contexts that end inside a page, one within its first; a row beside prompts; prompts of several tiles; a short draft.
STEPS = (((700, 17, 130), (1, 1, 1)), ((300, 17, 130, 3), (7, 1, 130, 3)))


def spec_of(heads: HeadShape, page_size: int, dtype: str, **more: object) -> Attention:
    pages = pages_for_units(GpuPages(heads, page_size, STORED[dtype]))
    assert isinstance(pages, MatrixPages)
    return Attention(pages, gpu(dtype), STORED[dtype], **more)  # type: ignore[arg-type]


CASES = {
    "llama": (spec_of(HeadShape(8, 2, 64), 16, "float16"), "sm_90"),
    "all": (spec_of(HeadShape(5, 1, 80), 8, "bfloat16", window=50, soft_cap=3.0, sinks=True), "sm_80"),
    "128": (spec_of(HeadShape(8, 2, 128), 16, "bfloat16"), "sm_90"),
    "many heads": (spec_of(HeadShape(17, 1, 32), 64, "float16"), "sm_80"),
    "256": (spec_of(HeadShape(4, 2, 256), 16, "float16", soft_cap=5.0), "sm_80"),
    "192": (spec_of(HeadShape(2, 2, 192), 8, "bfloat16", window=200), "sm_90"),
    "96": (spec_of(HeadShape(3, 3, 96), 32, "float16", sinks=True), "sm_80"),
}


def with_type(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """The checks of WebGPU's tests, in this type of 16 bits."""
    for tests in (units, latents):
        monkeypatch.setattr(tests, "rounded", lambda x: floats(stored(np.asarray(x), dtype), dtype).astype(np.float32))
        monkeypatch.setattr(tests, "as_words", lambda x: _flat(stored(x, dtype)).view(np.uint32))
        monkeypatch.setattr(tests, "as_floats", lambda x: floats(_halves(x, dtype), dtype))


def _flat(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(len(array), -1)


def _halves(words: np.ndarray, dtype: str) -> np.ndarray:
    return words.view(np.uint16).view(STORED[dtype])


def whole(spec: Attention, arch: str, *, rows: int) -> Kernel:
    """The product's kernel, as those checks call it: with words, and results of single rows apart from others.

    Args:
        rows: arrays with a row for each of the step, which come first.
    """
    kernel, dtype = Executed(attention(spec), arch), spec.gpu.dtype

    def call(*arrays: np.ndarray) -> None:
        *given, y, z, partials = arrays
        inputs = [_halves(array, dtype) for array in given[: rows + 1]] + given[rows + 1 :]
        sinks = [] if spec.sinks or isinstance(spec.pages, LatentPages) else inputs[-1:]
        halves = np.full_like(_halves(y, dtype), 0x7FFF if dtype == "bfloat16" else np.nan)
        poisoned = np.full_like(partials, np.nan)
        kernel(*inputs[: len(inputs) - len(sinks)], halves, poisoned)
        y[...] = halves.view(np.uint32)
        z[...] = floats(halves, dtype)

    return call


IN_ALL_TESTS = ("llama", "all")


@pytest.mark.parametrize(
    "name", [*IN_ALL_TESTS, *(pytest.param(n, marks=LARGE) for n in CASES if n not in IN_ALL_TESTS)]
)
def test_rows_see_what_they_should(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, arch = CASES[name]
    with_type(monkeypatch, spec.gpu.dtype)
    kernel = whole(spec, arch, rows=1)
    for lengths, rows in STEPS:
        units.check(spec, kernel, lengths, rows)


@pytest.mark.parametrize("arch", [pytest.param("sm_80", marks=LARGE), pytest.param("sm_90", marks=LARGE)])
def test_parts_of_several_rounds(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a step has much context: a part then has more than one round of its warps."""
    monkeypatch.setattr(attention_spec, "BLOCKS", 1)
    spec = spec_of(HeadShape(8, 2, 64), 16, "float16", window=600)
    with_type(monkeypatch, "float16")
    units.check(spec, whole(spec, arch, rows=1), (900, 600, 20), (1, 1, 1))


@pytest.mark.parametrize(
    ("heads", "dtype", "arch"),
    [
        (4, "float16", "sm_90"),
        pytest.param(16, "bfloat16", "sm_80", marks=LARGE),
        pytest.param(20, "float16", "sm_80", marks=LARGE),
    ],
)
def test_latents(heads: int, dtype: str, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the size of DeepSeek's, but for fewer heads."""
    with_type(monkeypatch, dtype)
    for name, value in {"LATENT": 512, "ROTARY": 64, "WIDTH": 576}.items():
        monkeypatch.setattr(latents, name, value)
    shape = LatentShape(heads=heads, latent=512, rotary=64, plain=128, value=128)
    spec = Attention(LatentPages.of(shape, 16, STORED[dtype]), gpu(dtype), STORED[dtype])
    assert fits_units(spec)
    kernel = whole(spec, arch, rows=2)
    for lengths, rows in (((300, 17, 130), (1, 1, 1)), ((70, 17, 12), (7, 1, 12))):
        latents.check(spec, kernel, lengths, rows)
