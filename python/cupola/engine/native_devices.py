"""What devices that Cupola drives itself have in common: their largest tensor, their memory, how long kernels take."""

from __future__ import annotations

from dataclasses import dataclass

from cupola.engine.native_library import device, native
from cupola.engine.native_opencl import load_opencl, opencl_devices
from cupola.engine.native_webgpu import load_webgpu, webgpu_adapters

PLUGINS = {"opencl": load_opencl, "webgpu": load_webgpu}
"""Kinds of devices that are driven by Cupola, with what makes them usable (EngineError: it cannot be used here)."""


@dataclass(frozen=True, slots=True)
class TensorLimit:
    """What bounds a tensor on a device: the device's name and the most bytes."""

    device: str
    bytes: int


def tensor_limit(kind: str) -> TensorLimit | None:
    """That of the first device of a kind; None: its tensors are bounded by its memory only."""
    if kind == "webgpu":
        adapter = webgpu_adapters()[0]
        return TensorLimit(adapter.name, adapter.max_tensor_bytes)
    if kind == "opencl":
        first = opencl_devices()[0]
        return TensorLimit(first.name, first.max_tensor_bytes)
    return None


def allocated_bytes(kind: str, index: int = 0) -> int:
    """What tensors take on a device that was used."""
    return int(native("device.allocated_bytes")(device(kind, index)))


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What a kernel took, by the device's clock."""

    kernel: str
    calls: int
    microseconds: float


class KernelProfile:
    """Measures each kernel that runs on a device while it is open; slows WebGPU's down: each is a pass of its own.

    with KernelProfile("webgpu") as profile:
        ...
    print(profile.times)
    """

    def __init__(self, kind: str, index: int = 0) -> None:
        self._device = device(kind, index)
        self.times: tuple[KernelTime, ...] = ()

    def __enter__(self) -> KernelProfile:
        native("device.start_profile")(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        self.times = tuple(KernelTime(*time) for time in native("device.stop_profile")(self._device))
