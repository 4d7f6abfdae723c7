"""Machine code of products of a few rows for CUDA: registers, no spills, loads of 16 bytes. Compiled, not executed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from gpu_cases import compiled, source

from cupola.compiler.cuda import find_nvcc
from cupola.compiler.gpu_target import resolve_gpu
from cupola.kernels.emit import Arg
from cupola.kernels.gpu.column_choice import columns_of
from cupola.kernels.gpu.emit import kernel, size_var
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import Linear
from cupola.kernels.gpu.matrix_unit import of_cuda
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import Format

GPU = Gpu(1024, 49152, 32, "float16", half=True, matrix=of_cuda("float16"))
REGISTERS = 65536  # of a multiprocessor

# Outputs and inputs of the products of Llama 3 8B, the format, rows, architecture. Of one row, 24 warps fit on a
# multiprocessor (two blocks of 14 or 16 where there are few blocks), each with at least 2 KiB under way.
CASES = [
    (4096, 4096, Format.Q4, 1, "sm_80"),
    (4096, 14336, Format.Q4, 1, "sm_90"),
    (28672, 4096, Format.Q4, 1, "sm_100"),
    (28672, 4096, Format.Q4, 8, "sm_90"),
    (4096, 14336, Format.F16, 1, "sm_90"),
    (6144, 4096, Format.F16, 8, "sm_89"),
    (128256, 4096, Format.Q8, 1, "sm_90"),
    (4096, 4096, Format.MXFP4, 1, "sm_89"),
]


@pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize(("outputs", "inputs", "fmt", "rows", "arch"), CASES)
def test_products_of_few_rows(outputs: int, inputs: int, fmt: Format, rows: int, arch: str, tmp_path: Path) -> None:
    gated = outputs == 28672
    ending = Ending(outputs, outputs // 2 if gated else outputs, gated=gated)
    spec = Linear(Packed(fmt, outputs, inputs, half=True), ending, "float16", "float16", GPU)
    way, n = columns_of(spec.matrix, GPU.matrix, spec.x, rows, spec.halves), size_var("n")
    assert way is not None
    args = {"x": Arg((n, inputs), "float16"), "w": Arg(spec.matrix.shape, "uint32")}
    args["y"] = Arg((n, ending.width), "float16")
    function = kernel("product", args, lambda **spans: spec.in_columns(n, spans, way))
    text = source(compiled(function, resolve_gpu("cuda", arch).tvm_target()))
    file, ptx = tmp_path / "kernel.cu", tmp_path / "kernel.ptx"
    file.write_text(text, encoding="utf-8")
    nvcc = [str(find_nvcc()), f"-arch={arch}"]
    subprocess.run([*nvcc, "-ptx", "-o", str(ptx), str(file)], capture_output=True, check=True)
    loads = re.findall(
        r"ld\.(?:global\.nc|relaxed\.gpu\.global)\.L1::no_allocate(?:\.(v\d))?\.b32", ptx.read_text(encoding="utf-8")
    )
    of_step = 8 if rows == 1 or fmt is Format.F16 else 4
    assert loads.count("v4") in (of_step, 2 * of_step)  # codes, or floats; nvcc writes some loops out twice
    assert set(loads) <= {"v4", "v2"} or fmt in (Format.F16, Format.MXFP4)  # scales and inputs: two words, or one
    command = [*nvcc, "-cubin", "-Xptxas", "-v", "-o", str(tmp_path / "out"), str(file)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report) == [("0", "0")], report
    (registers,) = (int(count) for count in re.findall(r"Used (\d+) registers", report))
    blocks = REGISTERS // (-(-registers // 8) * 8 * way.threads)
    assert blocks * way.warps >= (24 if rows == 1 else 16), report
