"""Which library of a compiled folder this machine executes, and why none if it executes none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cupola import devices, processor
from cupola.devices import Device
from cupola.errors import IncompatibleError
from cupola.manifest import Library, Manifest

PROCESSOR_KINDS = ("llvm", "scripted")
RUNTIMES = ("cuda", "webgpu")  # kinds of devices that TVM's wheel, or Cupola itself, can drive


@dataclass(frozen=True, slots=True)
class Machine:
    """What a library is compared with: the architecture, its features (none: unknown), its accelerators, the system."""

    name: str
    flags: frozenset[str]
    devices: tuple[Device, ...]
    system: str = "linux"


def this_machine(manifest: Manifest) -> Machine:
    """This machine; drivers of accelerators are asked only if the model has a library for one."""
    accelerated = any(_kind(library) not in PROCESSOR_KINDS for library in manifest.libraries)
    return Machine(processor.machine(), processor.flags(), devices.find() if accelerated else (), processor.system())


def choose(manifest: Manifest, machine: Machine | None = None) -> Manifest:
    """The manifest with one library: the best that the machine can execute. Its code would end the process otherwise.

    An accelerator goes before a processor, and the library that uses most of it before one that uses less.

    Raises:
        IncompatibleError: it can execute none.
    """
    machine = machine or this_machine(manifest)
    obstacles = [_obstacle(library, machine) for library in manifest.libraries]
    able = [library for library, why in zip(manifest.libraries, obstacles, strict=True) if why is None]
    if able:
        return manifest.model_copy(update={"libraries": (max(able, key=_rank),)})
    reasons = "; ".join(dict.fromkeys(why for why in obstacles if why))
    raise IncompatibleError(
        f"the model {manifest.name} cannot run here: {reasons}",
        hint="Compile it on this machine, or for many: `cupola compile --target cpu:x86-64-v3`.",
    )


def _obstacle(library: Library, machine: Machine) -> str | None:
    """Why the machine cannot execute a library; None if it can."""
    target = library.target
    wanted = (target.get("machine", machine.name), target.get("system", machine.system))
    if wanted != (machine.name, machine.system):
        return (
            f"{library.file} was compiled for {' '.join(wanted)}, but this machine is {machine.name} {machine.system}"
        )
    missing = [name for name in target.get("needs", "").split() if machine.flags and name not in machine.flags]
    if missing:
        return f"{library.file} was compiled for {target.get('cpu')}, but this processor lacks {', '.join(missing)}"
    kind = _kind(library)
    if kind in PROCESSOR_KINDS:
        return None
    if kind not in RUNTIMES:
        return f"{library.file} was compiled for {kind}, which the installed TVM cannot drive"
    present = [device for device in machine.devices if device.kind == kind]
    if not present:
        return f"{library.file} was compiled for {kind}, of which this machine has no device"
    if not any(_executes(device, target.get("arch", "")) for device in present):
        return f"{library.file} was compiled for {target['arch']}, but this machine has {_names(present)}"
    return None


def _executes(device: Device, arch: str) -> bool:
    """Machine code for CUDA runs on later GPUs of its generation too, other code on its own architecture only."""
    wanted, present = _capability(arch), _capability(device.arch)
    if device.kind == "cuda" and wanted and present:
        return wanted[0] == present[0] and wanted[1] <= present[1]
    return arch == device.arch


def _rank(library: Library) -> tuple[bool, tuple[int, int], int]:
    target = library.target
    capability = _capability(target.get("arch", "")) or (0, 0)
    return _kind(library) not in PROCESSOR_KINDS, capability, len(target.get("needs", "").split())


def _capability(arch: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"sm_(\d+)(\d)", arch)
    return (int(found[1]), int(found[2])) if found else None


def _kind(library: Library) -> str:
    return library.target.get("kind", "llvm")


def _names(present: Sequence[Device]) -> str:
    return ", ".join(dict.fromkeys(device.arch or device.name for device in present))
