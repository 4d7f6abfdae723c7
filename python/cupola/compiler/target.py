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
VNNI_FLAGS = (frozenset({"avx512vnni", "avx512vl"}), frozenset({"avxvnni"}))  # either will do
# LLVM knows which processor has what, but to ask it takes a second that a hit of the cache does not have.
_AVX512_VNNI_CPUS = "cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake sapphirerapids"
_AVX_VNNI_CPUS = "alderlake raptorlake meteorlake arrowlake arrowlake-s lunarlake sierraforest grandridge"
VNNI_CPUS = frozenset(f"{_AVX512_VNNI_CPUS} {_AVX_VNNI_CPUS} emeraldrapids graniterapids znver4 znver5".split())
AVX2_CPUS = VNNI_CPUS | frozenset({"x86-64-v3", "x86-64-v4", "haswell", "skylake", "znver1", "znver2", "znver3"})


@dataclass(frozen=True)
class CpuTarget:
    """A processor, as LLVM names it, and the dot-product instructions to use on it.

    Args:
        cpu: LLVM's name.
        isa: a name of `kernels.cpu.isa`.
        machine: the architecture, as the operating system names it.
        without: features that the named processor has and this one lacks, as in a virtual machine that hides them.
    """

    cpu: str
    isa: str
    machine: str
    without: tuple[str, ...] = ()

    def tvm_target(self) -> Target:
        """TVM's form of it."""
        import tvm

        fields: dict[str, str | list[str]] = {"kind": "llvm"}
        if self.cpu != "generic":
            fields["mcpu"] = self.cpu
        if self.without:
            fields["mattr"] = [f"-{feature}" for feature in self.without]
        return tvm.target.Target(fields)

    def describe(self) -> dict[str, str]:
        """What the manifest records, and the loader compares with its machine."""
        described = {"kind": "llvm", "cpu": self.cpu, "isa": self.isa, "machine": self.machine}
        return described | ({"without": ",".join(self.without)} if self.without else {})


def resolve(config: TargetConfig) -> CpuTarget:
    """Fills in what is `auto`.

    `cpu = "auto"` stops at x86-64-v3, so that machines of one kind compile the same library; `native` does not.

    Raises:
        UsageError: `isa` asks for instructions that `cpu` does not have.
    """
    machine = platform.machine().lower()
    cpu, without = config.cpu, tuple[str, ...]()
    if cpu == "auto":
        cpu = "x86-64-v3" if machine in X86 and _cpu_flags() >= AVX2_FLAGS else "generic"
    if cpu == "native":
        cpu, features, without = _native_cpu()
        avx2, vnni = features >= AVX2_FLAGS, any(features >= wanted for wanted in VNNI_FLAGS)
    else:
        avx2, vnni = cpu in AVX2_CPUS, cpu in VNNI_CPUS
    x86 = machine in X86
    has = (*(["vnni"] if x86 and avx2 and vnni else []), *(["avx2"] if x86 and avx2 else []), "plain")
    isa = has[0] if config.isa == "auto" else config.isa
    if isa not in has:
        raise UsageError(f"target.isa is `{isa}`, which target.cpu `{cpu}` does not have", hint='use isa = "auto"')
    return CpuTarget(cpu, isa, machine, without)


def _native_cpu() -> tuple[str, frozenset[str], tuple[str, ...]]:
    """This machine's processor: LLVM's name, the features that it has, and those that it lacks in spite of its name."""
    import tvm

    cpu = str(tvm.get_global_func("target.llvm_get_system_cpu")())
    named = tvm.get_global_func("target.llvm_get_cpu_features")(tvm.target.Target({"kind": "llvm", "mcpu": cpu}))
    here = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    features = frozenset(str(feature) for feature in named)
    without = tuple(sorted(feature for feature in features if feature in here and not here[feature]))
    return cpu, features.difference(without), without


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
