"""What `cupola doctor` looks at: one function a matter, each with a finding and, where something is wrong, a hint."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from cupola import __version__, processor
from cupola.errors import CupolaError

GIB = 2**30
_HUB_SECONDS = 3.0
_SCARCE_MEMORY = 1 * GIB
_SCARCE_DISK = 2 * GIB


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Args:
        state: fail: Cupola cannot work so; note: a part of it cannot, or it could do better.
        hint: what to do about it; empty where all is well.
    """

    name: str
    state: Literal["ok", "note", "fail"]
    text: str
    hint: str = ""


def versions() -> Finding:
    """The versions that make a compiled model, against those that this Cupola was made for."""
    wanted = {}
    for requirement in requires("cupola") or ():
        needed, _, condition = requirement.partition(";")
        name, pinned, release = needed.partition("==")
        if pinned and "extra" not in condition:
            wanted[name.strip()] = release.strip()
    found = {}
    for name in wanted:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    text = f"cupola {__version__}, python {platform.python_version()}, " + ", ".join(map(" ".join, found.items()))
    if found == wanted:
        return Finding("versions", "ok", text)
    return Finding("versions", "fail", text, "pip install --force-reinstall cupola, into an environment of its own")


def native_library() -> Finding:
    """TVM's runtime and the engine, loaded as the server loads them."""
    from cupola.engine.native_library import load_tvm_runtime, native

    try:
        load_tvm_runtime()
        native("engine.create")
    except (CupolaError, OSError, ValueError) as error:
        hint = getattr(error, "hint", None) or "install Cupola again: pip install --force-reinstall cupola"
        return Finding("engine", "fail", f"cannot be loaded: {error}", hint)
    return Finding("engine", "ok", "TVM's runtime and the native engine can be loaded")


def cpu() -> Finding:
    """The processor, and what `cpu = "auto"` makes of it."""
    from cupola.compiler.cpu_target import resolve_cpu

    target = resolve_cpu("auto", "auto")
    features = [
        name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if name in processor.flags()
    ]
    text = (
        f"{processor.machine()}, {' '.join(features) or 'no vector features known'}; auto: {target.cpu}, {target.isa}"
    )
    if target.isa == "plain":
        return Finding("processor", "note", text, "without AVX2 kernels are slow; virtual machines may hide it")
    return Finding("processor", "ok", text)


def cores() -> Finding:
    """The cores that this process may use, by affinity and by the container's quota."""
    allowed, present = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    quota = _quota()
    text = f"{allowed} of {present}" + (f", {quota:.1f} by the container's quota" if quota else "")
    if quota and quota < allowed:
        return Finding("cores", "note", text, f"start with --num-threads {max(1, int(quota))}")
    return Finding("cores", "ok", text)


def memory() -> Finding:
    """What is free: the KV cache takes a quarter of it, if nobody says more."""
    import psutil  # type: ignore[import-untyped]

    state = psutil.virtual_memory()
    limit = _memory_limit()
    text = f"{state.available / GIB:.1f} of {state.total / GIB:.1f} GiB free"
    if limit is not None and limit < state.total:
        hint = f"the container may use {limit / GIB:.1f} GiB: bound the KV cache with --kv-cache-memory"
        return Finding("memory", "note", text, hint)
    if state.available < _SCARCE_MEMORY:
        return Finding("memory", "note", text, "take a smaller model, or end other programs")
    return Finding("memory", "ok", text)


def webgpu() -> Finding:
    """The adapters that models for WebGPU run on, the first of which is used."""
    from cupola.engine.native_webgpu import webgpu_adapters

    def found() -> list[str]:
        return [_driven(one.name, one.type, one.backend, one.max_tensor_bytes, one.f16) for one in webgpu_adapters()]

    hint = "install a driver for Vulkan; Mesa's for processors is in Debian's package mesa-vulkan-drivers"
    return _finding_of("webgpu", found, "no adapter", hint)


def opencl() -> Finding:
    """The devices that models for OpenCL run on, the first of which is used."""
    from cupola.engine.native_opencl import opencl_devices

    def found() -> list[str]:
        return [_driven(one.name, one.type, one.platform, one.max_tensor_bytes, one.f16) for one in opencl_devices()]

    hint = "install a driver for OpenCL; one for processors is in Debian's package pocl-opencl-icd"
    return _finding_of("opencl", found, "no device", hint)


def _driven(name: str, kind: str, driver: str, max_tensor_bytes: int, f16: bool) -> str:
    floats = ", 16-bit floats" if f16 else ""
    return f"{name} ({kind}, {driver}, tensors up to {max_tensor_bytes / GIB:.1f} GiB{floats})"


def _finding_of(name: str, devices: Callable[[], list[str]], none: str, hint: str) -> Finding:
    try:
        found = devices()
    except CupolaError as error:
        return Finding(name, "note", f"{error}", error.hint or "")
    return Finding(name, "ok", "; ".join(found)) if found else Finding(name, "note", none, hint)


def gpus() -> Finding:
    """The GPUs that their makers' drivers tell of, and what is missing for those that models for CUDA run on."""
    from cupola import devices
    from cupola.engine.native_model import load_runtime

    found = devices.find()
    if not found:
        return Finding("GPUs", "ok", "none that NVIDIA's or AMD's drivers tell of")
    text = "; ".join(f"{device.name} ({device.kind}, {device.arch})" for device in found)
    if any(device.kind == "cuda" for device in found):
        try:
            load_runtime("cuda")
        except CupolaError as error:
            return Finding("GPUs", "note", f"{text}; but {error}", error.hint or "")
    return Finding("GPUs", "ok", text)


def compiler() -> Finding:
    """What links a compiled model."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and shutil.which(name):
            return Finding("C++ compiler", "ok", str(shutil.which(name)))
    return Finding(
        "C++ compiler", "note", "none: models that are compiled already can be served", "apt-get install g++"
    )


def cache() -> Finding:
    """The folder of fetched and compiled models: its size, whether it can be written, the room beside it."""
    from cupola.weights.cache import cache_root

    root = cache_root()
    hint = "set CUPOLA_HOME to a folder that can be written"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
        size = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_symlink() and path.is_file())
        models = sum(1 for _ in (root / "compiled").glob("*/model.json"))
        free = shutil.disk_usage(root).free
    except OSError as error:
        return Finding("cache", "fail", f"{root}: {error.strerror}", hint)
    text = f"{root}: {models} compiled models, {size / GIB:.2f} GiB; {free / GIB:.1f} GiB free"
    if free < _SCARCE_DISK:
        return Finding("cache", "note", text, "free some space, or set CUPOLA_HOME to a folder on another disk")
    return Finding("cache", "ok", text)


def port(host: str, number: int) -> Finding:
    """The address of `cupola serve`."""
    name = f"port {number}"
    try:
        with socket.create_server((host, number)):
            pass
    except OSError as error:
        hint = f"another server runs there, or choose one: cupola serve --port {number + 1}"
        return Finding(name, "note", f"not free on {host}: {error.strerror or error}", hint)
    return Finding(name, "ok", f"free on {host}")


def hub() -> Finding:
    """Whether models can be fetched by their names."""
    import urllib.error
    import urllib.request

    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").lower() in {"1", "true", "yes", "on"}:
            return Finding("hub", "note", f"offline, because {variable} is set", f"unset {variable} to fetch models")
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=_HUB_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        hint = "models on this machine work; for a mirror set HF_ENDPOINT, behind a proxy https_proxy"
        return Finding("hub", "note", f"{address} cannot be reached: {reason}", hint)
    return Finding("hub", "ok", f"{address} can be reached")


CHECKS: tuple[Callable[[], Finding], ...] = (
    versions,
    native_library,
    cpu,
    cores,
    memory,
    gpus,
    webgpu,
    opencl,
    compiler,
    cache,
)
"""Those that need no argument and no network."""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _quota() -> float | None:
    """Cores that the control group allows; None without a bound."""
    allowance, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return int(allowance) / int(period) if allowance.isdecimal() and period.isdecimal() else None


def _memory_limit() -> int | None:
    limit = _read("/sys/fs/cgroup/memory.max")
    return int(limit) if limit.isdecimal() else None
