"""What accelerators this machine has, as their drivers tell: for the compiler, and for who loads its work.

It asks the driver's library or the system's files, so that it needs neither TVM nor a toolkit, and answers "none" on a
machine without.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")
_CUDA_MAJOR, _CUDA_MINOR = 75, 76  # CUdevice_attribute: the compute capability


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator.

    Args:
        kind: as in a compile configuration: cuda, rocm; or webgpu, opencl, whose libraries the engine asks.
        arch: sm_90, gfx1100; "" for webgpu and opencl.
        name: what its maker calls it.
        software: it is the processor, so it serves tests and nothing else.
    """

    kind: str
    arch: str
    name: str
    software: bool = False


def find() -> tuple[Device, ...]:
    """Every accelerator that a driver tells of, in the drivers' order."""
    return (*_cuda(), *_rocm())


def executes(device: Device, arch: str) -> bool:
    """Machine code for CUDA runs on later GPUs of its generation too, other code on its own architecture only."""
    wanted, present = capability(arch), capability(device.arch)
    if device.kind == "cuda" and wanted and present:
        return wanted[0] == present[0] and wanted[1] <= present[1]
    return arch == device.arch


def capability(arch: str) -> tuple[int, int] | None:
    """The generation and version of a CUDA architecture: (9, 0) of sm_90; None where it is none."""
    found = re.fullmatch(r"sm_(\d+)(\d)", arch)
    return (int(found[1]), int(found[2])) if found else None


def _cuda() -> Iterator[Device]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        start = driver.cuInit
    except (OSError, AttributeError):  # none, or one that the compiler put in its place to link without a device
        return
    count = ctypes.c_int()
    if start(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return
    for ordinal in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        failed = (
            driver.cuDeviceGet(ctypes.byref(device), ordinal)
            or driver.cuDeviceGetName(name, len(name), device)
            or driver.cuDeviceGetAttribute(ctypes.byref(major), _CUDA_MAJOR, device)
            or driver.cuDeviceGetAttribute(ctypes.byref(minor), _CUDA_MINOR, device)
        )
        if not failed:
            yield Device("cuda", f"sm_{major.value}{minor.value}", name.value.decode(errors="replace"))


def _rocm(nodes: Path = _KFD_NODES) -> Iterator[Device]:
    """Linux's kernel driver lists processors (version 0) and GPUs alike: 90402 is gfx942, the last two hexadecimal."""
    for path in sorted(nodes.glob("*/properties")):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        version = int(next((line.split()[1] for line in lines if line.startswith("gfx_target_version ")), "0"))
        if version:
            arch = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
            yield Device("rocm", arch, f"AMD {arch}")
