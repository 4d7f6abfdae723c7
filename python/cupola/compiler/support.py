"""What this installation can compile for: every target that has a name, and what is missing for it here."""

from __future__ import annotations

import shutil
from pathlib import Path

from cupola.compiler.cpu_target import resolve_cpu
from cupola.compiler.gpu_target import ARCHITECTURES, GpuTarget, resolve_gpu
from cupola.compiler.linker import linker_for
from cupola.compiler.rocm import bitcode_folder, find_linker
from cupola.compiler.target import Target
from cupola.errors import CupolaError

_CPUS = ("x86-64", "x86-64-v3", "x86-64-v4+avx512vnni", "aarch64", "aarch64+dotprod", "aarch64+dotprod+i8mm")


def every_target() -> tuple[Target, ...]:
    """Every target by name, processors first."""
    gpus = (resolve_gpu(kind, each.name) for kind, known in ARCHITECTURES.items() for each in known)
    return (*(resolve_cpu(cpu, "auto") for cpu in _CPUS), *gpus)


def obstacle(target: Target) -> str | None:
    """What is missing to compile for a target on this machine; None if nothing is."""
    try:
        linker_for(target.host)
    except CupolaError as error:
        return error.message
    return _gpu_obstacle(target) if isinstance(target, GpuTarget) else None


def _gpu_obstacle(target: GpuTarget) -> str | None:
    import tvm

    if tvm.get_global_func(f"target.build.{target.kind}", allow_missing=True) is None:
        return f"the installed TVM has no code generator for {target.kind}"
    if target.kind == "cuda" and not (shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").is_file()):
        return "nvcc is not installed"
    if target.kind == "rocm" and bitcode_folder() is None:
        return "AMD's device libraries are not installed (apt-get install rocm-device-libs)"
    if target.kind == "rocm" and find_linker() is None:
        return "no linker for AMD's code objects is installed (apt-get install lld-19, or pip install ziglang)"
    return None
