"""GPUs: the kinds of devices that TVM generates code for, their architectures, and the bounds of one thread block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from cupola import processor
from cupola.compiler.cpu_target import BASELINE, CpuTarget
from cupola.errors import UsageError

if TYPE_CHECKING:
    from tvm.target import Target

GpuKind = Literal["cuda", "rocm", "metal", "vulkan", "webgpu", "opencl"]
Activations = Literal["float16", "bfloat16", "float32"]
BFLOAT16_KINDS = ("cuda", "rocm")


@dataclass(frozen=True, slots=True)
class Architecture:
    """What devices of one architecture share.

    Args:
        name: as compilers name it; "" where one library serves all devices of the kind.
        threads: most threads of a block that kernels may count on.
        shared_bytes: bytes of memory that the threads of a block share.
        warp: threads that execute together and may exchange registers; 1: nothing is known, so nothing is exchanged.
        dtype: of activations, where nobody asks for another.
    """

    name: str
    threads: int
    shared_bytes: int
    warp: int
    dtype: Activations = "float16"


# Where it comes from: CUDA C++ Programming Guide (compute capabilities); LLVM's AMDGPU usage (wavefront sizes, 64 KiB
# of LDS); Metal feature set tables (32 KiB, SIMD groups of 32); default limits of WebGPU (256 invocations, 16 KiB); for
# Vulkan and OpenCL what practically every GPU has. No kernel counts on a subgroup, nor on 16-bit floats, where the
# standard does not promise them.
ARCHITECTURES: Mapping[GpuKind, tuple[Architecture, ...]] = MappingProxyType(
    {
        "cuda": tuple(Architecture(name, 1024, 49152, 32) for name in ("sm_80", "sm_89", "sm_90", "sm_100")),
        "rocm": (
            Architecture("gfx90a", 1024, 65536, 64),
            Architecture("gfx942", 1024, 65536, 64),
            Architecture("gfx1100", 1024, 65536, 32),
        ),
        "metal": (Architecture("", 1024, 32768, 32),),
        "vulkan": (Architecture("", 256, 16384, 1, "float32"),),
        "webgpu": (Architecture("", 256, 16384, 1, "float32"),),
        "opencl": (Architecture("", 256, 16384, 1, "float32"),),
    }
)


@dataclass(frozen=True)
class GpuTarget:
    """A kind of GPU, and the processor that calls it.

    Args:
        kind: TVM's name of the code generator.
        arch: the architecture, such as sm_90 or gfx1100; "" where one library serves all devices of the kind.
        threads, shared_bytes, warp: as in `Architecture`.
        dtype: of activations and of the pages' keys and values.
        host: runs the library's own code, which launches the kernels.
    """

    kind: GpuKind
    arch: str
    threads: int
    shared_bytes: int
    warp: int
    dtype: Activations
    host: CpuTarget

    def tvm_target(self) -> Target:
        """TVM's form of it, with the host."""
        import tvm

        fields: dict[str, str | int | bool] = {
            "kind": self.kind,
            "max_num_threads": self.threads,
            "max_shared_memory_per_block": self.shared_bytes,
            "thread_warp_size": self.warp,
        }
        if self.kind != "webgpu":
            fields["max_threads_per_block"] = self.threads
        if self.kind == "cuda":
            fields["arch"] = self.arch
        elif self.kind == "rocm":
            fields["mcpu"] = self.arch
        elif self.kind == "vulkan" and self.dtype == "float16":
            fields["supports_float16"] = True
        return tvm.target.Target(fields, self.host.tvm_target())

    def describe(self) -> dict[str, str]:
        """What the manifest records; `kind` and `arch` are what the loader compares with the devices that it finds,
        `machine` and `needs` with its processor.
        """
        host = self.host.describe()
        return {
            "kind": self.kind,
            "arch": self.arch,
            "dtype": self.dtype,
            "machine": host["machine"],
            "system": host["system"],
            "needs": host["needs"],
        }

    @property
    def label(self) -> str:
        """What tells it from others of its kind, or the kind."""
        return self.arch or self.kind

    @property
    def name(self) -> str:
        """As `--target` takes it, such as cuda:sm_90."""
        return f"{self.kind}:{self.arch}" if self.arch else self.kind


def resolve_gpu(kind: GpuKind, arch: str, dtype: Activations | Literal["auto"] = "auto") -> GpuTarget:
    """The target of one architecture of a kind.

    Raises:
        UsageError: there is no such architecture, or the kind has no such numbers.
    """
    known = {architecture.name: architecture for architecture in ARCHITECTURES[kind]}
    found = known.get(arch)
    if found is None:
        names = ", ".join(known)
        hint = f"one of {names}" if any(known) else f'leave arch out: one library serves all devices of kind "{kind}"'
        raise UsageError(f"target.arch is `{arch}`, which is no architecture of {kind} that is known here", hint=hint)
    chosen = found.dtype if dtype == "auto" else dtype
    if chosen == "bfloat16" and kind not in BFLOAT16_KINDS:
        raise UsageError(f"target.dtype is `bfloat16`, which {kind} does not have", hint="use float16 or float32")
    host = CpuTarget(BASELINE, "plain", processor.machine())
    if kind == "metal":
        host = CpuTarget(BASELINE, "plain", "aarch64", system="macos")
    return GpuTarget(kind, arch, found.threads, found.shared_bytes, found.warp, chosen, host)
