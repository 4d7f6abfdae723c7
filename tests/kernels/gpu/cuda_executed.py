"""Kernels for CUDA, executed by the interpreter of PTX (`tests/ptx`): TVM's own host code launches them, on arrays.

A kernel goes through the product's passes; its CUDA goes through nvcc with the product's options, to PTX, no further.
Both halves are kept among the kernels of earlier runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.tirx.build import split_host_device_mods

from cupola.compiler import pipeline
from cupola.compiler.cuda import find_nvcc, source_only
from cupola.compiler.gpu_target import resolve_gpu
from cupola.kernels.gpu.attention_warp import CudaWarps
from cupola.kernels.gpu.matrix_unit import of_cuda
from cupola.kernels.gpu.trait import Gpu
from kernels import kernel_cache
from ptx.interpreter import Argument, Counts, Program

NEEDS_NVCC = [
    pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed: CUDA's kernels are not executed"),
    pytest.mark.timeout(900),  # of which nvcc takes nearly all, where nothing was kept
]
LARGE = pytest.mark.cuda_executed
ARCHITECTURES = ("sm_80", "sm_90")
SEEDS = (0, 1)  # orders of warps and blocks
NO_DEVICE = "cupola.tests.no_device"  # in place of setting CUDA's device
BLOCK, GRID, DYNAMIC = "threadIdx.", "blockIdx.", "tirx.use_dyn_shared_memory"


def gpu(dtype: str) -> Gpu:
    """What the product says of a CUDA device to kernels, by the type of activations."""
    if dtype == "float32":
        return Gpu(1024, 49152, 32, dtype, half=True)
    return Gpu(1024, 49152, 32, dtype, half=True, matrix=of_cuda(dtype))


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as kernels have them: float32, float16, or bfloat16 as uint16."""
    if dtype != "bfloat16":
        return values.astype(dtype)
    return values.astype(ml_dtypes.bfloat16).view(np.uint16)


def floats(array: np.ndarray, dtype: str) -> np.ndarray:
    """The same as float64."""
    return (array.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else array).astype(np.float64)


class Executed:
    """A kernel function. Called with arrays, it leaves its results in them.

    Args:
        arch: what it is compiled for.
        seeds: orders of warps and blocks; results must not depend on them.
        change: what is done to the PTX first, for tests that plant faults.
    """

    def __init__(
        self,
        function: tirx.PrimFunc,
        arch: str = "sm_90",
        seeds: Sequence[int] = SEEDS,
        change: Callable[[str], str] | None = None,
    ) -> None:
        self._code, self._seeds = _code(function, arch), seeds
        self._program = Program(change(self._code.ptx.read_text())) if change else self._code.program
        self._host = tvm.runtime.load_module(str(self._code.library))[self._code.name]
        self.counts: list[Counts] = []  # of the grids of the last call

    def __call__(self, *arrays: np.ndarray) -> None:
        results = [self._run(arrays, seed) for seed in self._seeds]
        for other in results[1:]:
            for first, found in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(first, found, err_msg="results depend on the order of warps")
        for array, found in zip(arrays, results[0], strict=True):
            array[...] = found

    def _run(self, arrays: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        views = [np.from_dlpack(tensor) for tensor in tensors]
        self.counts = []
        self._code.runs.append(_Run(self._program, views, seed, self.counts))
        try:
            self._host(*tensors)
        finally:
            self._code.runs.pop()
        return views


@dataclass(frozen=True, slots=True)
class _Run:
    """A call: the memory that kernels may touch, and what is found out."""

    program: Program
    arrays: Sequence[np.ndarray]
    seed: int
    counts: list[Counts]


@dataclass(frozen=True, slots=True)
class _Code:
    """Both halves of a kernel function.

    Args:
        runs: the call that is being carried out.
    """

    name: str
    library: Path
    ptx: Path
    program: Program
    runs: list[_Run]

    def launch(self, kernel: str, tags: Sequence[str], values: Sequence[object]) -> None:
        """What the host asks the driver for: a kernel's arguments, then its extents in the order of `tags`."""
        run, count = self.runs[-1], len(values) - len(tags)
        sizes = run.program.parameters(kernel)
        extents = {tag: int(str(value)) for tag, value in zip(tags, values[count:], strict=True)}
        arguments = [_argument(value, size) for value, size in zip(values[:count], sizes, strict=True)]
        run.counts.append(
            run.program.launch(
                kernel,
                arguments,
                block=[extents.get(BLOCK + axis, 1) for axis in "xyz"],
                grid=[extents.get(GRID + axis, 1) for axis in "xyz"],
                shared=extents.get(DYNAMIC, 0),
                seed=run.seed,
                touched=run.arrays,
            )
        )


def _argument(value: object, size: int) -> Argument:
    address = getattr(value, "value", value)
    if isinstance(address, float):
        return np.float32(address)
    return np.frombuffer((int(str(address or 0)) % 2 ** (8 * size)).to_bytes(size, "little"), f"u{size}")[0]


def _code(function: tirx.PrimFunc, arch: str) -> _Code:
    text = tvm.ir.save_json(function)
    key = hashlib.sha256("\n".join((text, arch, kernel_cache.lowering(), _compiler())).encode()).hexdigest()[:24]
    name = f"kernel_{key}"
    library, ptx = (kernel_cache.FOLDER / f"{name}.{kind}" for kind in ("so", "ptx"))
    if not library.exists() or not ptx.exists():
        _build(function, name, arch, library, ptx)
    return _loaded(name, library, ptx)


@cache  # a library that is loaded twice is one, and finds its kernels once
def _loaded(name: str, library: Path, ptx: Path) -> _Code:
    launches, _, body = ptx.read_text().partition("\n")
    code = _Code(name, library, ptx, Program("\n" + body), [])
    tvm.register_global_func(NO_DEVICE, lambda *_: None, override=True)
    for kernel, tags in json.loads(launches.removeprefix("//")).items():
        _register(code, kernel, tags)
    return code


def _register(code: _Code, kernel: str, tags: Sequence[str]) -> None:
    """The host looks kernels up among the functions of all."""
    tvm.register_global_func(kernel, lambda *values: code.launch(kernel, tags, values), override=True)


def _build(function: tirx.PrimFunc, name: str, arch: str, library: Path, ptx: Path) -> None:
    pipeline.register()
    target = resolve_gpu("cuda", arch).tvm_target()  # type: ignore[arg-type]
    lower, finalize_host, finalize_device = tirx.get_tir_pipeline(pipeline.GPU_PIPELINE)
    with target, source_only():
        module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
        host, devices = split_host_device_mods(lower(tirx.transform.BindTarget(target)(module)))
        host = tvm.ir.load_json(tvm.ir.save_json(host).replace("__tvm_set_device", NO_DEVICE))
        compiled = tvm.get_global_func("target.build.llvm")(finalize_host()(host), target.host)
        kernel_cache.keep(compiled, library)
        ((_, device),) = devices.items()
        source = tvm.get_global_func("target.build.cuda")(finalize_device()(device), target).inspect_source()
    launches = {
        str(kernel.attrs["global_symbol"]) if "global_symbol" in kernel.attrs else variable.name_hint: [
            str(tag) for tag in kernel.attrs["tirx.kernel_launch_params"]
        ]
        for variable, kernel in device.functions.items()
    }
    unfinished = ptx.with_suffix(f".{os.getpid()}.ptx")
    unfinished.write_text(f"//{json.dumps(launches)}\n{ptx_of(source, arch)}")
    unfinished.replace(ptx)


def ptx_of(source: str, arch: str) -> str:
    """CUDA through nvcc, with the options of `cupola/compiler/cuda.py`."""
    with tempfile.TemporaryDirectory() as folder:
        file, ptx = Path(folder) / "kernel.cu", Path(folder) / "kernel.ptx"
        file.write_text(source)
        command = [str(find_nvcc()), "--ptx", "-O3", "-w", f"-arch={arch}", "-o", str(ptx), str(file)]
        subprocess.run(command, capture_output=True, check=True)
        return ptx.read_text()


@cache
def _compiler() -> str:
    return subprocess.run([str(find_nvcc()), "--version"], capture_output=True, text=True, check=True).stdout


def on_cuda(monkeypatch: pytest.MonkeyPatch, tests: ModuleType, arch: str) -> None:
    """Lets tests that are written for WebGPU execute CUDA's kernels, with CUDA's instructions."""
    monkeypatch.setattr(tests, "build", lambda function: Executed(function, arch))
    if hasattr(tests, "model"):
        monkeypatch.setattr(tests, "model", lambda dtype, **_: of_cuda(dtype))
    if hasattr(tests, "ApartUnit"):
        monkeypatch.setattr(tests, "ApartUnit", lambda *_, **__: CudaWarps("bfloat16"))
