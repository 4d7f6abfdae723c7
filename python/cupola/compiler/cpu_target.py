"""Processors: their names, their features, and the dot-product instructions that code for them may use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cupola import processor
from cupola.errors import UsageError

if TYPE_CHECKING:  # TVM takes a second to import, and a target is resolved even when the cache has the model
    from tvm.target import Target

X86 = ("x86_64", "amd64")
ARM = ("aarch64", "arm64")
BASELINE = "generic"  # LLVM's name of a processor with nothing but the architecture's minimum
_BASELINE_NAMES = {"x86_64": "x86-64"}  # what people call it

# LLVM knows which processor has what, but to ask it takes a second that a hit of the cache does not have.
AVX_VNNI_CPUS = frozenset(
    {"alderlake", "raptorlake", "meteorlake", "arrowlake", "lunarlake", "sierraforest", "grandridge"}
)
AVX512_CPUS = frozenset(
    {"cascadelake", "cooperlake", "icelake-client", "icelake-server", "tigerlake", "rocketlake"}
    | {"sapphirerapids", "emeraldrapids", "graniterapids", "znver4", "znver5"}
)
ARM_CPUS = ("aarch64", "a64fx", "ampere", "apple-", "carmel", "cortex-", "grace", "neoverse-", "oryon", "tsv110")
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
    "neon": "asimd",
    "dotprod": "asimddp",
    "i8mm": "i8mm",
    "fullfp16": "asimdhp",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "lse": "atomics",
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
ARM_LEVELS = (
    Level("i8mm", BASELINE, ("dotprod", "i8mm"), frozenset(["asimd", "asimddp", "i8mm"])),
    Level("dotprod", BASELINE, ("dotprod",), frozenset(["asimd", "asimddp"])),
    Level("plain", BASELINE, (), frozenset()),
)
OTHER_LEVELS = ARM_LEVELS[-1:]


@dataclass(frozen=True)
class CpuTarget:
    """A processor, as LLVM names it, and the dot-product instructions to use on it.

    Args:
        cpu: LLVM's name.
        isa: a name of `kernels.cpu.isa`.
        machine: the architecture, as the operating system names it.
        extra: features that this machine has and the named processor lacks.
        without: features that the named processor has and this one lacks, as in a virtual machine that hides them.
        system: the operating system, linux or macos.
    """

    cpu: str
    isa: str
    machine: str
    extra: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    system: str = "linux"

    @property
    def host(self) -> CpuTarget:
        """The processor that runs the library's own code, as a GPU's target has one beside it: this one."""
        return self

    @property
    def label(self) -> str:
        """The processor as `--target cpu:` takes it, such as x86-64-v4+avx512vnni."""
        named = self.cpu if self.cpu != BASELINE else _BASELINE_NAMES.get(self.machine, self.machine)
        return "+".join([named, *self.extra])

    @property
    def name(self) -> str:
        """As `--target` takes it."""
        return f"cpu:{self.label}"

    def tvm_target(self) -> Target:
        """TVM's form of it."""
        import tvm

        fields: dict[str, str | list[str]] = {"kind": "llvm"}
        if self.system == "macos":
            fields["mtriple"] = f"{self.machine}-apple-macos11"
        elif self.machine != processor.machine():
            fields["mtriple"] = f"{self.machine}-linux-gnu"
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
        return {
            "kind": "llvm",
            "cpu": self.label,
            "isa": self.isa,
            "machine": self.machine,
            "system": self.system,
            "needs": " ".join(needs),
        }


def resolve_cpu(name: str, isa: str) -> CpuTarget:
    """A processor by its name.

    Args:
        name: LLVM's name of it, or `aarch64` (any 64-bit Arm), with features that it has beyond that joined by `+`, as
            in x86-64-v4+avx512vnni; `auto`: the best that this machine has, by kinds of machines, so that all machines
            of one kind compile the same library; `native`: this very processor.
        isa: a name of `kernels.cpu.isa`, or auto for the best that the processor has.

    Raises:
        UsageError: `isa` asks for instructions that the processor, or this machine, does not have.
    """
    machine = processor.machine()
    if name == "auto":
        levels = [level for level in _levels(machine) if level.flags <= processor.flags()]
        wanted = [level for level in levels if isa in ("auto", level.isa)]
        if not wanted:
            raise _lacks(isa, "this machine")
        return CpuTarget(wanted[0].cpu, wanted[0].isa, machine, extra=wanted[0].extra)
    if name == "native":
        cpu, without = _native_cpu()
        return _checked(CpuTarget(cpu, isa, machine, without=without), CpuTarget(cpu, "plain", machine).features())
    cpu, *extra = name.split("+")
    machine = "aarch64" if cpu.startswith(ARM_CPUS) else "x86_64"
    cpu = BASELINE if cpu in ARM else cpu
    return _checked(CpuTarget(cpu, isa, machine, extra=tuple(extra)), _features_by_name(cpu) | set(extra))


def _levels(machine: str) -> tuple[Level, ...]:
    if machine in X86:
        return LEVELS
    return ARM_LEVELS if machine in ARM else OTHER_LEVELS


def _checked(target: CpuTarget, features: frozenset[str]) -> CpuTarget:
    """The target with an instruction set in place of `auto`, if its processor, with these features, has it."""
    has = _instruction_sets(target.machine, features - set(target.without))
    isa = has[0] if target.isa == "auto" else target.isa
    if isa not in has:
        raise _lacks(isa, f"target.cpu `{target.cpu}`")
    return replace(target, isa=isa)


def _lacks(isa: str, what: str) -> UsageError:
    return UsageError(f"target.isa is `{isa}`, which {what} does not have", hint='use isa = "auto"')


def _features_by_name(cpu: str) -> frozenset[str]:
    """Of LLVM's features of a named processor those that decide about dot products."""
    avx512 = ["avx512vl", "avx512vnni"] if cpu in AVX512_CPUS else ["avx512vl"] if cpu == "x86-64-v4" else []
    avx_vnni = ["avxvnni"] if cpu in AVX_VNNI_CPUS else []
    return frozenset([*(["avx2", "fma", "f16c"] if cpu in AVX2_CPUS else []), *avx512, *avx_vnni])


def _instruction_sets(machine: str, features: frozenset[str]) -> tuple[str, ...]:
    """The names of `kernels.cpu.isa` that a processor with these features can execute, the best first."""
    if machine in ARM:
        found = {"i8mm": features >= {"dotprod", "i8mm"}, "dotprod": "dotprod" in features, "plain": True}
    else:
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
