"""Which library of a compiled folder this machine executes, and why none if it executes none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cupola import processor
from cupola.devices import Device, capability, executes
from cupola.engine.accelerators import find
from cupola.errors import IncompatibleError
from cupola.manifest import Library, Manifest

PROCESSOR_KINDS = ("llvm", "scripted")
RUNTIMES = ("cuda", "webgpu", "opencl")  # kinds of devices that TVM's wheel, or Cupola itself, can drive


@dataclass(frozen=True, slots=True)
class Machine:
    """What a library is compared with: the architecture, its features (none: unknown), its accelerators, the system."""

    name: str
    flags: frozenset[str]
    devices: tuple[Device, ...]
    system: str = "linux"

    @classmethod
    def here(cls, *, accelerators: bool = True) -> Machine:
        """This machine; drivers of accelerators are asked only where they matter, because that takes a while."""
        return cls(processor.machine(), processor.flags(), find() if accelerators else (), processor.system())


def choose(manifest: Manifest, machine: Machine | None = None) -> Manifest:
    """The manifest with one library: the best that the machine can execute. Its code would end the process otherwise.

    An accelerator goes before a processor, a processor before one that it plays itself, and the library that uses most
    of it before one that uses less.

    Raises:
        IncompatibleError: it can execute none.
    """
    accelerated = any(_kind(library) not in PROCESSOR_KINDS for library in manifest.libraries)
    machine = machine or Machine.here(accelerators=accelerated)
    obstacles = {library.file: obstacle(library, machine) for library in manifest.libraries}
    able = [library for library in manifest.libraries if obstacles[library.file] is None]
    if able:
        return manifest.model_copy(update={"libraries": (max(able, key=lambda library: _rank(library, machine)),)})
    reasons = "; ".join(
        f"{library.file} is for {_what(library)}, but {obstacles[library.file]}" for library in manifest.libraries
    )
    raise IncompatibleError(
        f"the model {manifest.name} cannot run here: {reasons}",
        hint="Compile it on this machine, or for many: `cupola compile --target cpu:x86-64-v3`.",
    )


def obstacle(library: Library, machine: Machine) -> str | None:
    """Why the machine cannot execute a library; None if it can."""
    target = library.target
    wanted = (target.get("machine", machine.name), target.get("system", machine.system))
    if wanted != (machine.name, machine.system):
        return f"this machine is {machine.name} {machine.system}"
    missing = [name for name in target.get("needs", "").split() if machine.flags and name not in machine.flags]
    if missing:
        return f"this processor lacks {', '.join(missing)}"
    kind = _kind(library)
    if kind in PROCESSOR_KINDS:
        return None
    if kind not in RUNTIMES:
        return f"the installed TVM cannot drive {kind} devices"
    present = [device for device in machine.devices if device.kind == kind]
    if not present:
        return f"this machine has no {kind} device"
    if not any(executes(device, target.get("arch", "")) for device in present):
        return f"this machine has {_names(present)}"
    return None


def _what(library: Library) -> str:
    """What a library was compiled for, in words."""
    target = library.target
    if _kind(library) not in PROCESSOR_KINDS:
        return target.get("arch") or target["kind"]
    named = [target.get("cpu", ""), target.get("machine", ""), target.get("system", "")]
    return " ".join(dict.fromkeys(name for name in named if name)) or "another machine"


def _rank(library: Library, machine: Machine) -> tuple[int, tuple[int, int], int]:
    target, kind = library.target, _kind(library)
    software = all(device.software for device in machine.devices if device.kind == kind)
    place = 1 if kind in PROCESSOR_KINDS else 0 if software else 2
    return place, capability(target.get("arch", "")) or (0, 0), len(target.get("needs", "").split())


def _kind(library: Library) -> str:
    return library.target.get("kind", "llvm")


def _names(present: Sequence[Device]) -> str:
    return ", ".join(dict.fromkeys(device.arch or device.name for device in present))
