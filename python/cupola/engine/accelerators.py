"""The accelerators that an engine of this process can run a model on, or be told why not."""

from __future__ import annotations

from cupola import devices
from cupola.devices import Device
from cupola.engine.native_webgpu import webgpu_adapters
from cupola.errors import EngineError


def find() -> tuple[Device, ...]:
    """Every accelerator that a driver tells of: GPUs by their makers' drivers first, then the same ones as WebGPU's."""
    try:
        adapters = webgpu_adapters()
    except EngineError:  # the optional wgpu-native is not installed
        adapters = ()
    found = (Device("webgpu", "", f"{a.name} ({a.backend})", a.type == "software") for a in adapters)
    return (*devices.find(), *found)
