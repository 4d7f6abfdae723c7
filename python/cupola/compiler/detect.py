"""`--target`: a target's name into the configuration of it, and what `auto` finds on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from cupola import devices, processor
from cupola.compiler.config import TargetConfig
from cupola.compiler.cpu_target import ARM_CPUS, AVX2_CPUS, resolve_cpu
from cupola.compiler.gpu_target import ARCHITECTURES, GpuKind
from cupola.devices import Device, capability
from cupola.errors import UsageError

_HINT = "`cupola targets` lists them; for example auto, cpu:x86-64-v3, aarch64, cuda:sm_90, webgpu"
_DRIVEN = {"webgpu": "WebGPU", "opencl": "OpenCL"}  # kinds whose one library serves every device


def parse(name: str, find: Callable[[], Sequence[Device]]) -> tuple[TargetConfig, str | None]:
    """The configuration that a name of a target stands for; for `auto` also a sentence that says why.

    Args:
        name: KIND or KIND:NAME,NAME (one library each), the name of a processor alone, or auto.
        find: asked for the accelerators of this machine, for auto.

    Raises:
        UsageError: there is no such target.
    """
    if name == "auto":
        found, reason = choose(find())
        return parse(found, find)[0], f"--target auto is {found}: {reason}"
    kind, _, rest = name.partition(":")
    names = rest.split(",") if rest else []
    if kind == "cpu":
        return TargetConfig.model_validate({"cpu": names or "auto"}), None
    if kind in get_args(GpuKind):
        return TargetConfig.model_validate({"kind": kind, "arch": names}), None
    processors = name.split(",")
    if all(processor.startswith((*ARM_CPUS, "x86-64")) or processor in AVX2_CPUS for processor in processors):
        return TargetConfig.model_validate({"cpu": processors}), None
    raise UsageError(f"--target is `{name}`, which is no target", hint=_HINT)


def choose(present: Sequence[Device]) -> tuple[str, str]:
    """The best target of a machine with these accelerators, by its name, and why."""
    reasons = []
    for device in present:
        if device.kind == "cuda":
            arch = _arch_for(device)
            if arch:
                return f"cuda:{arch}", f"the CUDA driver tells of {device.name}, which is {device.arch}"
            reasons.append(f"{device.name} is {device.arch}, older than what is compiled for")
        elif device.kind in _DRIVEN and not device.software:
            return device.kind, f"{_DRIVEN[device.kind]} tells of {device.name}"
        elif device.kind in _DRIVEN:
            reasons.append(f"{device.name} is this processor in disguise")
        else:
            reasons.append(f"{device.name} has no driver in the installed TVM")
    processor_ = resolve_cpu("auto", "auto")
    found = "; ".join(reasons) or "no driver tells of a GPU"
    return "cpu", f"{found}; the {processor.machine()} processor is {processor_.label}, with {processor_.isa} products"


def _arch_for(device: Device) -> str | None:
    """The latest architecture whose machine code the device executes."""
    names = [architecture.name for architecture in ARCHITECTURES["cuda"]]
    able = [name for name in names if devices.executes(device, name)]
    return max(able, key=lambda name: capability(name) or (0, 0), default=None)
