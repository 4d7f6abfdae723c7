"""The kinds of devices that compiled kernels and models are executed on here, and what a machine lacks for them.

Tests that ask for the fixture `kind` (tests/gpu) or call `gpu_cases.build` (tests/kernels/gpu) run on WebGPU; those of
the modules in EVERYWHERE on OpenCL too. `CUPOLA_GPU_DEVICE=opencl` chooses one kind for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from cupola.engine.native_opencl import opencl_devices
from cupola.engine.native_webgpu import webgpu_adapters
from cupola.errors import EngineError

CONFIGS = Path(__file__).resolve().parents[2] / "compile_configs"
_DEVICES: dict[str, tuple[Callable[[], Sequence[object]], str]] = {
    "webgpu": (webgpu_adapters, "mesa-vulkan-drivers"),
    "opencl": (opencl_devices, "pocl-opencl-icd"),
}
KINDS = tuple(_DEVICES)
EVERYWHERE = ("test_gpu_device", "test_gpu_engine", "test_gpu_rows")


def chosen(module: str) -> tuple[str, ...]:
    """The kinds that a module's tests are executed on."""
    wanted = os.environ.get("CUPOLA_GPU_DEVICE")
    if wanted:
        return tuple(wanted.split(","))
    return KINDS if module.rpartition(".")[2] in EVERYWHERE else KINDS[:1]


@cache
def obstacle(kind: str) -> str:
    """Why this machine cannot execute on a kind of device; "" if it can."""
    devices, package = _DEVICES[kind]
    try:
        return "" if devices() else f"no driver that {kind} can use (apt-get install {package})"
    except EngineError as error:
        return f"{error} (apt-get install {package})"


def config(kind: str) -> Path:
    """The shipped configuration of a kind."""
    return CONFIGS / f"{kind}.toml"
