"""Builds one kernel by itself and calls it with NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

os.environ.setdefault("TVM_BIND_THREADS", "0")
os.environ.setdefault("TVM_NUM_THREADS", "2")

import numpy as np
import tvm
from tvm import tirx

from cupola.compiler import pipeline
from cupola.compiler.config import TargetConfig
from cupola.compiler.target import CpuTarget, resolve
from cupola.errors import UsageError
from cupola.kernels.cpu.isa import AVX2, AVX512, PLAIN, VNNI, Isa
from kernels import kernel_cache

TARGET: CpuTarget = resolve(TargetConfig())
NATIVE: CpuTarget = resolve(TargetConfig(cpu="native"))


def _executable() -> Iterator[tuple[Isa, CpuTarget]]:
    for isa in (PLAIN, AVX2, VNNI, AVX512):
        with suppress(UsageError):  # this machine lacks it
            yield isa, resolve(TargetConfig.model_validate({"isa": isa.name}))


# What this machine can execute, each with the kind of machine that libraries with it are for; the best comes last.
TARGETS: Mapping[Isa, CpuTarget] = dict(_executable())
INSTRUCTION_SETS: tuple[Isa, ...] = tuple(TARGETS)


def build_module(function: tirx.PrimFunc, target: CpuTarget = TARGET) -> tvm.runtime.Module:
    """Compiles one kernel as the product does; the module's function is `kernel`."""
    pipeline.register()
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return tvm.tirx.build(module, target=target.tvm_target(), pipeline=pipeline.CPU_PIPELINE)


def load_module(function: tirx.PrimFunc, target: CpuTarget = TARGET) -> tvm.runtime.Module:
    """The same out of the cache of kernels, if this kernel was ever compiled for this target."""
    library = kernel_cache.path_of(function, target)
    if not library.exists():
        kernel_cache.keep(build_module(function, target), library)
    return tvm.runtime.load_module(str(library))


def build(function: tirx.PrimFunc, target: CpuTarget = TARGET) -> Callable[..., None]:
    """Compiles one kernel; the result takes NumPy arrays and writes its outputs into them."""
    compiled = load_module(function, target)["kernel"]

    def call(*arrays: np.ndarray) -> None:
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        compiled(*tensors)
        for array, tensor in zip(arrays, tensors, strict=True):
            array[...] = tensor.numpy()

    return call
