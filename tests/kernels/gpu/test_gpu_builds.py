"""What compilers say of the kernels for devices that are not here, and what WebGPU's default limits allow."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tvm
from gpu_cases import compiled, source
from tvm import tirx

from cupola.compiler.cuda import find_nvcc
from cupola.compiler.gpu_target import GpuKind, resolve_gpu
from cupola.errors import UnsupportedError
from cupola.kernels.gpu.attention import Attention, attention
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.experts import Experts, linear_experts
from cupola.kernels.gpu.linear import Linear, linear
from cupola.kernels.gpu.pages import GpuPages, LatentPages
from cupola.kernels.gpu.products import GpuProducts
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.kernels.heads import HeadShape
from cupola.kernels.latent_shape import LatentShape
from cupola.quantize.formats import Format


def kernels(gpu: Gpu) -> dict[str, tirx.PrimFunc]:
    """The largest of them, at the sizes of Llama 3 8B and of DeepSeek-V3."""
    dtype = gpu.stored
    matrix = Packed(Format.Q4, 4096, 4096, gpu.half)
    pages = GpuPages(HeadShape(32, 8, 128), 16, dtype)
    latents = LatentPages.of(LatentShape(heads=128, latent=512, rotary=64, plain=128, value=128), 16, dtype)
    return {
        "linear": linear(Linear(matrix, Ending(4096, 4096, residual="float32"), dtype, "float32", gpu)),
        "gated": linear(Linear(matrix, Ending(4096, 2048, gated=True), dtype, dtype, gpu)),
        "attention": attention(Attention(pages, gpu, dtype, window=512, sinks=True)),
        "latent attention": attention(Attention(latents, gpu, dtype)),
    }


def target(kind: GpuKind, arch: str = "") -> tvm.target.Target:
    return resolve_gpu(kind, arch).tvm_target()


def test_kernels_keep_to_the_default_limits_of_webgpu() -> None:
    for name, function in kernels(Gpu()).items():
        for text in source(compiled(function, target("webgpu"))).split("@compute"):
            storage = re.findall(r"var<storage", text)
            shared = sum(int(count) * 4 for count in re.findall(r"var<workgroup> \w+ : array<\w+, (\d+)>", text))
            assert len(storage) <= 8, name
            assert shared <= 16384, name
            assert all(int(threads) <= 256 for threads in re.findall(r"workgroup_size\((\d+)", text)), name


@pytest.mark.parametrize("kind", ["metal", "opencl"])
def test_kernels_are_translated(kind: GpuKind) -> None:
    half = kind == "metal"
    for name, function in kernels(Gpu(dtype="float16" if half else "float32", half=half)).items():
        assert "barrier" in source(compiled(function, target(kind))), name


@pytest.mark.parametrize(("fmt", "rows"), [(Format.F16, 2**19), (Format.Q8, 986_896), (Format.F32, 2**18)])
def test_a_matrix_of_more_words_than_int32_counts_is_refused(fmt: Format, rows: int) -> None:
    products = GpuProducts(Gpu())
    assert products.matrix(fmt, rows - 16, 8192).rows == rows - 16
    with pytest.raises(UnsupportedError, match=rf"a matrix \[{rows}, 8192\] in {fmt.value} is too large"):
        products.matrix(fmt, rows, 8192)


def test_memory_of_blocks_is_declared_where_opencl_allows_it() -> None:
    matrix = Packed(Format.Q4, 4096, 64, half=False)
    experts = Experts(matrix, Ending(64, 64), 64, 2, pairs=False, x="float32", y="float32", gpu=Gpu())
    for function in (*kernels(Gpu()).values(), linear_experts(experts)):
        lines = source(compiled(function, target("opencl"))).splitlines()
        declared = [line for line in lines if line.lstrip().startswith("__local")]
        assert declared
        assert all(len(line) - len(line.lstrip()) == 2 for line in declared), declared


@pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
def test_cuda_kernels_spill_nothing(tmp_path: Path) -> None:
    gpu = Gpu(1024, 49152, 32, "float16", half=True)
    for name, function in kernels(gpu).items():
        file = tmp_path / f"{name}.cu"
        file.write_text(source(compiled(function, target("cuda", "sm_90"))))
        command = [str(find_nvcc()), "-cubin", "-arch=sm_90", "-Xptxas", "-v", "-o", str(tmp_path / "out"), str(file)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
        assert spilled, name
        assert all(pair == ("0", "0") for pair in spilled), f"{name}: {report}"
        assert all(int(count) <= 128 for count in re.findall(r"Used (\d+) registers", report)), f"{name}: {report}"
