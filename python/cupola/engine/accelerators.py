"""The accelerators that an engine of this process can run a model on, or be told why not."""

from __future__ import annotations

from collections.abc import Iterator

from cupola import devices
from cupola.devices import Device
from cupola.engine.native_opencl import opencl_devices
from cupola.engine.native_webgpu import webgpu_adapters
from cupola.errors import EngineError


def find() -> tuple[Device, ...]:
    """Every accelerator that a driver tells of: GPUs by their makers' drivers first, then as WebGPU's, OpenCL's."""
    return (*devices.find(), *_webgpu(), *_opencl())


def _webgpu() -> Iterator[Device]:
    try:
        adapters = webgpu_adapters()
    except EngineError:  # the optional wgpu-native is not installed
        return
    for adapter in adapters:
        yield Device("webgpu", "", f"{adapter.name} ({adapter.backend})", adapter.type == "software")


def _opencl() -> Iterator[Device]:
    try:
        found = opencl_devices()
    except EngineError:  # there is no loader of drivers
        return
    for device in found:
        yield Device("opencl", "", f"{device.name} ({device.platform})", device.type == "processor")
