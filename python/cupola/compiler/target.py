"""The machine that a library is compiled for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cupola import processor
from cupola.compiler.config import TargetConfig
from cupola.errors import UsageError

if TYPE_CHECKING:  # TVM takes a second to import, and a target is resolved even when the cache has the model
    from tvm.target import Target

X86 = ("x86_64", "amd64")
BASELINE = "generic"  # LLVM's name of a processor with nothing but the architecture's minimum

# LLVM knows which processor has what, but to ask it takes a second that a hit of the cache does not have.
AVX_VNNI_CPUS = frozenset(
    {"alderlake", "raptorlake", "meteorlake", "arrowlake", "lunarlake", "sierraforest", "grandridge"}
)
AVX512_CPUS = frozenset(
    {"cascadelake", "cooperlake", "icelake-client", "icelake-server", "tigerlake", "rocketlake"}
    | {"sapphirerapids", "emeraldrapids", "graniterapids", "znver4", "znver5"}
)
AVX2_CPUS = AVX512_CPUS | AVX_VNNI_CPUS | {"haswell", "skylake", "znver1", "znver2", "znver3", "x86-64-v3", "x86-64-v4"}

# Features without which code of a library could stop with an illegal instruction: LLVM's names and Linux's.
_SAME_NAMES = "avx avx2 bmi2 f16c fma movbe avx512f avx512bw avx512cd avx512dq avx512vl avx512ifma avx512vbmi"
LINUX_NAMES = {name: name for name in _SAME_NAMES.split()} | {
    "avx512bf16": "avx512_bf16",
    "avx512bitalg": "avx512_bitalg",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avxvnni": "avx_vnni",
    "bmi": "bmi1",
    "lzcnt": "abm",
}


@dataclass(frozen=True)
class Level:
    """A kind of machine that `cpu = "auto"` knows.

    Args:
        isa: the best dot products that it has; a name of `kernels.cpu.isa`.
        cpu: LLVM's name of a processor with the features that all such machines have.
        extra: LLVM's names of features beyond those.
        flags: Linux's names of all features that tell it.
    """

    isa: str
    cpu: str
    extra: tuple[str, ...]
    flags: frozenset[str]


_V3 = frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"])
_V4 = _V3 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])
LEVELS = (  # the best first
    Level("avx512", "x86-64-v4", ("avx512vnni",), _V4 | {"avx512_vnni"}),
    Level("vnni", "x86-64-v3", ("avxvnni",), _V3 | {"avx_vnni"}),
    Level("vnni", "x86-64-v4", ("avx512vnni",), _V4 | {"avx512_vnni"}),
    Level("avx2", "x86-64-v3", (), _V3),
    Level("plain", "x86-64-v3", (), _V3),
    Level("plain", BASELINE, (), frozenset()),
)


@dataclass(frozen=True)
class CpuTarget:
    """A processor, as LLVM names it, and the dot-product instructions to use on it.

    Args:
        cpu: LLVM's name.
        isa: a name of `kernels.cpu.isa`.
        machine: the architecture, as the operating system names it.
        extra: features that this machine has and the named processor lacks.
        without: features that the named processor has and this one lacks, as in a virtual machine that hides them.
    """

    cpu: str
    isa: str
    machine: str
    extra: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def tvm_target(self) -> Target:
        """TVM's form of it."""
        import tvm

        fields: dict[str, str | list[str]] = {"kind": "llvm"}
        if self.cpu != BASELINE:
            fields["mcpu"] = self.cpu
        if self.extra or self.without:
            fields["mattr"] = [*(f"+{name}" for name in self.extra), *(f"-{name}" for name in self.without)]
        return tvm.target.Target(fields)

    def features(self) -> frozenset[str]:
        """LLVM's names of all features that code for this target may use."""
        import tvm

        return frozenset(map(str, tvm.get_global_func("target.llvm_get_cpu_features")(self.tvm_target())))

    def describe(self) -> dict[str, str]:
        """What the manifest records; `needs` and `machine` are what the loader compares with its own machine."""
        needs = sorted(LINUX_NAMES[name] for name in self.features() & LINUX_NAMES.keys())
        return {"kind": "llvm", "cpu": self.cpu, "isa": self.isa, "machine": self.machine, "needs": " ".join(needs)}


def resolve(config: TargetConfig) -> CpuTarget:
    """Fills in what is `auto`: the best that this machine has, by kinds of machines, so that all machines of one kind
    compile the same library. `cpu = "native"` goes by this very processor.

    Raises:
        UsageError: `isa` asks for instructions that `cpu`, or this machine, does not have.
    """
    machine = processor.machine()
    if config.cpu == "auto":
        levels = [level for level in LEVELS if level.flags <= (processor.flags() if machine in X86 else frozenset())]
        wanted = [level for level in levels if config.isa in ("auto", level.isa)]
        if not wanted:
            raise _lacks(config.isa, "this machine")
        return CpuTarget(wanted[0].cpu, wanted[0].isa, machine, extra=wanted[0].extra)
    if config.cpu == "native":
        cpu, without = _native_cpu()
        features = CpuTarget(cpu, "plain", machine, without=without).features()
    else:
        cpu, without, features = config.cpu, (), _features_by_name(config.cpu)
    has = _instruction_sets(features) if machine in X86 else ("plain",)
    isa = has[0] if config.isa == "auto" else config.isa
    if isa not in has:
        raise _lacks(isa, f"target.cpu `{cpu}`")
    return CpuTarget(cpu, isa, machine, without=without)


def _lacks(isa: str, what: str) -> UsageError:
    return UsageError(f"target.isa is `{isa}`, which {what} does not have", hint='use isa = "auto"')


def _features_by_name(cpu: str) -> frozenset[str]:
    """Of LLVM's features of a named processor those that decide about dot products."""
    avx512 = ["avx512vl", "avx512vnni"] if cpu in AVX512_CPUS else []
    avx_vnni = ["avxvnni"] if cpu in AVX_VNNI_CPUS else []
    return frozenset([*(["avx2", "fma", "f16c"] if cpu in AVX2_CPUS else []), *avx512, *avx_vnni])


def _instruction_sets(features: frozenset[str]) -> tuple[str, ...]:
    """The names of `kernels.cpu.isa` that a processor with these features can execute, the best first."""
    avx2 = features >= {"avx2", "fma", "f16c"}
    avx512 = avx2 and features >= {"avx512vl", "avx512vnni"}
    vnni = avx512 or (avx2 and "avxvnni" in features)
    found = {"avx512": avx512, "vnni": vnni, "avx2": avx2, "plain": True}
    return tuple(name for name, has in found.items() if has)


def _native_cpu() -> tuple[str, tuple[str, ...]]:
    """This machine's processor: LLVM's name, and the features that it lacks in spite of its name."""
    import tvm

    cpu = str(tvm.get_global_func("target.llvm_get_system_cpu")())
    here = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    named = CpuTarget(cpu, "plain", processor.machine()).features()
    return cpu, tuple(sorted(feature for feature in named if feature in here and not here[feature]))
