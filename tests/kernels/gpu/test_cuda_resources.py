"""What ptxas says of the kernels that only CUDA has, or that are largest there; and what those rest on in TVM."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm
from gpu_cases import compiled, source
from tvm import tirx
from tvm.s_tir import Schedule, TensorIntrin
from tvm.script import tirx as T  # noqa: N812 the name that TVMScript asks for

from cupola.compiler.cuda import find_nvcc
from cupola.compiler.gpu_target import resolve_gpu
from cupola.kernels.gpu.ending import Ending
from cupola.kernels.gpu.linear import Linear, linear
from cupola.kernels.gpu.matrix_unit import of_cuda
from cupola.kernels.gpu.sample_row import Rows
from cupola.kernels.gpu.sampling import sample
from cupola.kernels.gpu.trait import Gpu
from cupola.kernels.gpu.weights import Packed
from cupola.quantize.formats import Format

NEEDS_NVCC = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
MATRIX = Packed(Format.Q4, 4096, 4096, half=True)


def gpu(dtype: str) -> Gpu:
    return Gpu(1024, 49152, 32, dtype, half=True, matrix=of_cuda(dtype))


# Kernel, most registers a thread, most bytes of static shared memory, whether it must use matrix units (for their tiles
# see `test_cuda_matrix.py`).
KERNELS: dict[str, tuple[tirx.PrimFunc, int, int, bool]] = {
    "q4, float16": (
        linear(Linear(MATRIX, Ending(4096, 4096, residual="float32"), "float16", "float32", gpu("float16"))),
        255,
        25600,
        True,
    ),
    "sample": (sample(Rows(128256, 128256)), 48, 16384, False),
}


@NEEDS_NVCC
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_keep_within_their_registers_and_shared_memory(name: str, tmp_path: Path) -> None:
    function, most_registers, most_shared, units = KERNELS[name]
    file, cubin = tmp_path / "kernel.cu", tmp_path / "kernel.cubin"
    text = source(compiled(function, resolve_gpu("cuda", "sm_90").tvm_target()))
    assert ("mma.sync.aligned.m16n8k16" in text) == units
    file.write_text(text)
    command = [str(find_nvcc()), "-cubin", "-arch=sm_90", "-Xptxas", "-v", "-o", str(cubin), str(file)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert spilled
    assert set(spilled) == {("0", "0")}, report
    assert max(int(count) for count in re.findall(r"Used (\d+) registers", report)) <= most_registers, report
    assert max(int(count) for count in re.findall(r"(\d+) bytes smem", report)) <= most_shared, report


@T.prim_func(s_tir=True)
def copied(a: T.handle, b: T.handle) -> None:
    source_in = T.match_buffer(a, (16, 16), offset_factor=1)
    target_out = T.match_buffer(b, (16, 16), offset_factor=1)
    with T.sblock("root"):
        T.reads(source_in[0:16, 0:16])
        T.writes(target_out[0:16, 0:16])
        for i, j in T.grid(16, 16):
            with T.sblock("copy"):
                vi, vj = T.axis.remap("SS", [i, j])
                target_out[vi, vj] = source_in[vi, vj]


@T.prim_func(s_tir=True)
def large(a: T.handle, b: T.handle) -> None:
    source_in = T.match_buffer(a, (32, 32))
    target_out = T.match_buffer(b, (32, 32))
    for i, j in T.grid(32, 32):
        with T.sblock("copy"):
            vi, vj = T.axis.remap("SS", [i, j])
            target_out[vi, vj] = source_in[vi, vj]


def test_tensorize_works_with_the_pinned_pair_of_packages() -> None:
    """With later versions of apache-tvm-ffi it ends the process (TVM 0.27)."""
    TensorIntrin.register("cupola_test_copy", copied, copied, override=True)
    schedule = Schedule(large)
    i, j = schedule.get_loops(schedule.get_sblock("copy"))
    (i0, i1), (j0, j1) = schedule.split(i, [None, 16]), schedule.split(j, [None, 16])
    schedule.reorder(i0, j0, i1, j1)
    schedule.tensorize(i1, "cupola_test_copy")
    built = tvm.compile(schedule.mod, target={"kind": "llvm"})
    values = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    source_, target_ = tvm.runtime.tensor(values), tvm.runtime.tensor(np.zeros_like(values))
    built["main"](source_, target_)
    np.testing.assert_array_equal(target_.numpy(), values)
