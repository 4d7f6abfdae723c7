"""OpenCL: finds the loader of its drivers, which a machine has or has not, and makes TVM's runtime use it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache

from cupola.engine.native_library import first_line, load_tvm_runtime, native
from cupola.errors import EngineError

DEVICE_VARIABLE = "CUPOLA_OPENCL_DEVICE"
"""Environment variable: part of the name of a device or of its platform, which then comes before the others."""

_LOADER = {"darwin": "/System/Library/Frameworks/OpenCL.framework/OpenCL"}.get(sys.platform, "libOpenCL.so.1")


@dataclass(frozen=True, slots=True)
class OpenClDevice:
    """A device as its driver describes it."""

    name: str
    platform: str
    """Its driver."""
    version: str
    """Of OpenCL, in words of the driver."""
    driver: str
    type: str
    """GPU, accelerator, processor or other."""
    max_tensor_bytes: int
    """The most bytes of one tensor."""
    memory_bytes: int
    max_threads: int
    """Of a block."""
    shared_bytes: int
    """Of a block."""
    alignment: int
    """Bytes at whose multiples a tensor may begin within another one."""
    f16: bool


def opencl_devices() -> tuple[OpenClDevice, ...]:
    """The devices of this machine, in the order of their numbers: GPUs, then accelerators, processors last.

    Raises:
        EngineError: there is no loader of drivers, or it cannot be loaded.
    """
    try:
        found = native("opencl.load")(_LOADER, os.environ.get(DEVICE_VARIABLE, ""))
    except Exception as error:
        raise EngineError(
            f"OpenCL cannot be used: {first_line(error)}",
            hint="install a driver for OpenCL with its loader, which Debian calls ocl-icd-libopencl1",
        ) from error
    return tuple(OpenClDevice(**dict(device.items())) for device in found)


@cache
def load_opencl() -> None:
    """Make devices of the kind `opencl` usable by compiled libraries of this process.

    Raises:
        EngineError: there is no device, or TVM's runtime is another one.
    """
    if not opencl_devices():
        raise EngineError(
            "there is no device that OpenCL can use",
            hint="install a driver for OpenCL; one for processors is in the package pocl-opencl-icd",
        )
    load_tvm_runtime()
    try:
        native("opencl.register")()
    except Exception as error:
        raise EngineError(f"OpenCL cannot be used: {first_line(error)}") from error
