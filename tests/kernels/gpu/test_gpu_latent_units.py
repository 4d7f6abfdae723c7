"""Attention over latents on matrix units against float64, with its instructions taken apart; what ptxas says of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, Kernel, build
from test_cuda_attention import ALL, ARCHITECTURES, ptx_of
from test_gpu_attention_units import ApartUnit, as_floats, as_words, rounded
from tvm import tirx

from cupola.compiler.cuda import find_nvcc
from cupola.kernels.emit import Arg, Span
from cupola.kernels.gpu.attention import Attention
from cupola.kernels.gpu.attention_latent import fits_units, latent_parts, latent_tiles
from cupola.kernels.gpu.attention_merge import merge
from cupola.kernels.gpu.emit import kernel, size_var
from cupola.kernels.gpu.matrix_unit import of_cuda
from cupola.kernels.gpu.pages import LatentPages
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.latent_shape import LatentShape

WARPS, LATENT, ROTARY = 2, 32, 16
WIDTH = LATENT + ROTARY


def spec_of(heads: int, page_size: int) -> Attention:
    shape = LatentShape(heads=heads, latent=LATENT, rotary=ROTARY, plain=32, value=32)
    return Attention(LatentPages.of(shape, page_size, "uint16"), Gpu(), "uint16")


def emitted(spec: Attention) -> tirx.PrimFunc:
    """All three grids, as `attention` launches them; rows of prompts go to y, others, as floats, to z."""
    b, n, p, b1, pages, count = (size_var(name) for name in ("b", "n", "p", "b1", "pages", "slots"))
    heads = spec.pages.heads
    args = {
        "q": Arg((n, heads.queries * LATENT // 2), "uint32"),
        "r": Arg((n, heads.queries * ROTARY // 2), "uint32"),
        "pages": Arg((pages, spec.pages.elements // 2), "uint32"),
        "q_indptr": Arg((b1,), "int32"),
        "page_indptr": Arg((b1,), "int32"),
        "page_ids": Arg((p,), "int32"),
        "kv_len": Arg((b,), "int32"),
        "y": Arg((n, heads.queries * LATENT // 2), "uint32"),
        "z": Arg((n, heads.queries * LATENT), "float32"),
        "partials": Arg((count, heads.queries, LATENT + 2), "float32"),
    }

    def body(**t: Span) -> None:
        latent_tiles(spec, ApartUnit(late=False), t, n, b, WARPS)
        latent_parts(spec, ApartUnit(late=False), t, b, p, WARPS)
        merge(spec, {**t, "y": t["z"]}, b)

    return kernel("attention", args, body)


@NEEDS_GPU
@pytest.mark.families  # minutes of lavapipe's compiler: `make families-gpu`
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("heads", "page_size"), [(3, 16), (20, 8)])
def test_rows_see_what_they_should(heads: int, page_size: int) -> None:
    spec = spec_of(heads, page_size)
    assert fits_units(spec, WARPS)
    attend = build(emitted(spec))
    for lengths, rows in (((150, 17, 40), (1, 1, 1)), ((70, 17, 12), (7, 1, 12))):
        check(spec, attend, lengths, rows)


def check(spec: Attention, attend: Kernel, lengths: Sequence[int], rows: Sequence[int]) -> None:
    rng, heads, size = np.random.default_rng(0), spec.pages.heads.queries, spec.pages.page_size
    counts = [-(-length // size) for length in lengths]
    pages = np.full((sum(counts) + 1, WIDTH, size), np.nan, np.float32)
    ids = rng.permutation(len(pages)).astype(np.int32)
    begins, indptr = (np.cumsum([0, *sizes]).astype(np.int32) for sizes in (counts, rows))
    queries = rounded(rng.standard_normal((indptr[-1], heads, WIDTH)) * WIDTH**-0.5)
    expected = []
    for s, length in enumerate(lengths):
        latents = rounded(rng.standard_normal((length, WIDTH)))
        for token in range(length):
            pages[ids[begins[s] + token // size], :, token % size] = latents[token]
        for i in range(rows[s]):
            seen = latents[: length - rows[s] + i + 1].astype(np.float64)
            weights = np.exp(queries[indptr[s] + i] @ seen.T)
            expected.append(weights / weights.sum(axis=1, keepdims=True) @ seen[:, :LATENT])
    q, r = (np.ascontiguousarray(part) for part in np.split(queries, [LATENT], axis=2))
    y, z = np.zeros((len(q), heads * LATENT // 2), np.uint32), np.full((len(q), heads * LATENT), np.nan, np.float32)
    partials = np.zeros((int(spec.slots(len(ids), len(lengths))), heads, LATENT + 2), np.float32)
    lengths_ = np.array(lengths, np.int32)
    attend(as_words(q), as_words(r), as_words(pages), indptr, begins, ids, lengths_, y, z, partials)
    found = np.where(np.repeat(np.array(rows) > 1, rows)[:, None], as_floats(y), z)
    np.testing.assert_allclose(found.reshape(len(q), heads, -1), np.array(expected), atol=1e-2)


@pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
def test_kernels_keep_within_their_registers_and_shared_memory(tmp_path: Path) -> None:
    """Of DeepSeek-V2-Lite. Two blocks fit on a multiprocessor, with up to 255 registers."""
    shape = LatentShape(heads=16, latent=512, rotary=64, plain=128, value=128)
    gpu = Gpu(1024, 49152, 32, "float16", half=True, matrix=of_cuda("float16"))
    ptx = ptx_of(Attention(LatentPages.of(shape, 16, "float16"), gpu, "float16"), tmp_path)
    for arch in ARCHITECTURES if ALL else ARCHITECTURES[:1]:
        command = [str(Path(str(find_nvcc())).with_name("ptxas")), "-v", f"-arch={arch}", "-o", str(tmp_path / "out")]
        report = subprocess.run([*command, str(ptx)], capture_output=True, text=True, check=True).stderr
        assert set(re.findall(r"(\d+) bytes spill stores", report)) == {"0"}, report
        assert all(int(count) <= 224 for count in re.findall(r"Used (\d+) registers", report)), report
        assert all(int(count) <= 46080 for count in re.findall(r"(\d+) bytes smem", report)), report
