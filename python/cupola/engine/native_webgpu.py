"""WebGPU: finds wgpu-native, which the wheel `wgpu` brings, and makes TVM's runtime use it.

wgpu-native drives Vulkan, Metal and DirectX 12 alike. The wheel's Python part is never imported.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cupola.engine.native_library import first_line, load_tvm_runtime, native
from cupola.errors import EngineError

_HINT = "install it with `pip install cupola[webgpu]`"


@dataclass(frozen=True, slots=True)
class WebGpuAdapter:
    """An adapter as its driver describes it."""

    name: str
    driver: str
    backend: str
    """Vulkan, Metal or DirectX 12."""
    type: str
    """discrete GPU, integrated GPU, software or unknown."""
    max_buffer_bytes: int
    max_binding_bytes: int
    """The most bytes of a buffer that a kernel sees."""
    max_storage_buffers: int
    """The most tensors that a kernel takes."""
    max_threads: int
    """Of a block."""
    shared_bytes: int
    """Of a block."""
    f16: bool
    subgroups: bool
    timestamps: bool
    """Whether it can measure kernels."""

    @property
    def max_tensor_bytes(self) -> int:
        """The most bytes of one tensor."""
        return min(self.max_buffer_bytes, self.max_binding_bytes)


def webgpu_adapters() -> tuple[WebGpuAdapter, ...]:
    """The adapters of this machine, in the order of their device numbers: GPUs first, software last.

    Raises:
        EngineError: wgpu-native is not installed, or cannot be loaded.
    """
    path = _library_path()
    try:
        found = native("webgpu.load")(str(path))
    except Exception as error:
        raise EngineError(f"{path} cannot be used: {first_line(error)}", hint=_HINT) from error
    return tuple(WebGpuAdapter(**dict(adapter.items())) for adapter in found)


@cache
def load_webgpu() -> None:
    """Make devices of the kind `webgpu` usable by compiled libraries of this process.

    Raises:
        EngineError: wgpu-native is not installed, it finds no adapter, or TVM's runtime is another one.
    """
    adapters = webgpu_adapters()
    if not adapters:
        raise EngineError(
            "there is no device that WebGPU can use",
            hint="install a Vulkan driver; Mesa's software one is in the package mesa-vulkan-drivers",
        )
    load_tvm_runtime()
    try:
        native("webgpu.register")()
    except Exception as error:
        raise EngineError(f"WebGPU cannot be used: {first_line(error)}") from error


def _library_path() -> Path:
    spec = importlib.util.find_spec("wgpu")
    name = {"darwin": "libwgpu_native-release.dylib", "win32": "wgpu_native-release.dll"}.get(
        sys.platform, "libwgpu_native-release.so"
    )
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / "resources" / name
        if path.is_file():
            return path
    raise EngineError("wgpu-native, which models for WebGPU run on, is not installed", hint=_HINT)
