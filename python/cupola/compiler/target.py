"""The machine that a library is compiled for."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cupola.compiler.config import TargetConfig
from cupola.errors import UsageError

if TYPE_CHECKING:  # TVM takes a second to import, and a target is resolved even when the cache has the model
    from tvm.target import Target

X86 = ("x86_64", "amd64")
AVX2_FLAGS = frozenset({"avx2", "fma", "f16c"})
AVX2_CPUS = frozenset({"x86-64-v3", "x86-64-v4", "haswell", "skylake", "znver1", "znver2", "znver3", "znver4"})


@dataclass(frozen=True)
class CpuTarget:
    """A processor, as LLVM names it, and the dot-product instructions to use on it."""

    cpu: str
    isa: str
    machine: str

    def tvm_target(self) -> Target:
        """TVM's form of it."""
        import tvm

        fields: dict[str, str] = {"kind": "llvm"}
        if self.cpu != "generic":
            fields["mcpu"] = self.cpu
        return tvm.target.Target(fields)

    def describe(self) -> dict[str, str]:
        """What the manifest records, and the loader compares with its machine."""
        return {"kind": "llvm", "cpu": self.cpu, "isa": self.isa, "machine": self.machine}


def resolve(config: TargetConfig) -> CpuTarget:
    """Fills in what is `auto`.

    Raises:
        UsageError: `isa` asks for instructions that `cpu` does not have.
    """
    machine = platform.machine().lower()
    cpu = config.cpu
    if cpu == "auto":
        cpu = "x86-64-v3" if machine in X86 and _cpu_flags() >= AVX2_FLAGS else "generic"
    elif cpu == "native":
        cpu = _native_cpu()
    has_avx2 = machine in X86 and (cpu in AVX2_CPUS or (config.cpu == "native" and _cpu_flags() >= AVX2_FLAGS))
    isa = config.isa
    if isa == "auto":
        isa = "avx2" if has_avx2 else "plain"
    if isa == "avx2" and not has_avx2:
        raise UsageError(f"target.isa is `avx2`, which target.cpu `{cpu}` does not have", hint='use isa = "auto"')
    return CpuTarget(cpu, isa, machine)


def _native_cpu() -> str:
    """LLVM's name of this machine's processor."""
    import tvm

    return str(tvm.get_global_func("target.llvm_get_system_cpu")())


def _cpu_flags() -> frozenset[str]:
    """The feature flags of this machine's processor; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
