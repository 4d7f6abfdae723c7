"""The machines that libraries are compiled for: what `[target]` of a configuration becomes."""

from __future__ import annotations

from typing import TypeAlias

from cupola.compiler.config import TargetConfig
from cupola.compiler.cpu_target import CpuTarget, resolve_cpu
from cupola.compiler.gpu_target import ARCHITECTURES, BFLOAT16_KINDS, GpuTarget, resolve_gpu
from cupola.errors import UsageError

__all__ = ["CpuTarget", "GpuTarget", "Target", "resolve", "resolve_all"]

Target: TypeAlias = CpuTarget | GpuTarget


def resolve_all(config: TargetConfig, quant: str = "auto") -> tuple[Target, ...]:
    """All targets of a configuration, each of which gets a library of its own, in the order in which they are named.

    Args:
        quant: the scheme of the weights; where `dtype` is auto, floats of 32 bits or of bfloat16 ask for activations
            of the same kind.

    Raises:
        UsageError: a name or a combination that does not exist, or two of the same.
    """
    targets = tuple(_targets(config, quant))
    if len(set(targets)) < len(targets):
        raise UsageError("[target] names the same machine twice", hint="name each processor or architecture once")
    return targets


def resolve(config: TargetConfig, quant: str = "auto") -> Target:
    """The first of `resolve_all`, where one is enough."""
    return resolve_all(config, quant)[0]


def _targets(config: TargetConfig, quant: str) -> list[Target]:
    kind = config.kind
    if kind == "llvm":
        return [resolve_cpu(cpu, config.isa) for cpu in config.cpu]
    dtype = config.dtype
    if dtype == "auto" and quant == "f32":
        dtype = "float32"
    elif dtype == "auto" and quant == "bf16" and kind in BFLOAT16_KINDS:
        dtype = "bfloat16"
    names = config.arch or tuple(architecture.name for architecture in ARCHITECTURES[kind])
    return [resolve_gpu(kind, arch, dtype) for arch in names]
