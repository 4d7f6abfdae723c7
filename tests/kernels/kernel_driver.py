"""Builds one kernel by itself and calls it with NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

os.environ.setdefault("TVM_BIND_THREADS", "0")
os.environ.setdefault("TVM_NUM_THREADS", "2")

import numpy as np
import tvm
from tvm import tirx

from cupola.compiler import pipeline
from cupola.compiler.config import TargetConfig
from cupola.compiler.target import CpuTarget, resolve
from cupola.kernels.cpu.isa import AVX2, PLAIN, VNNI, Isa

TARGET: CpuTarget = resolve(TargetConfig())
NATIVE: CpuTarget = resolve(TargetConfig(cpu="native"))
INSTRUCTION_SETS: tuple[Isa, ...] = (PLAIN, AVX2) if TARGET.isa == "avx2" else (PLAIN,)

# What this machine can execute beyond the processors that libraries are compiled for by default.
TARGETS: Mapping[Isa, CpuTarget] = dict.fromkeys(INSTRUCTION_SETS, TARGET) | (
    {VNNI: NATIVE} if NATIVE.isa == "vnni" else {}
)


def build_module(function: tirx.PrimFunc, target: CpuTarget = TARGET) -> tvm.runtime.Module:
    """Compiles one kernel as the product does; the module's function is `kernel`."""
    pipeline.register()
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return tvm.tirx.build(module, target=target.tvm_target(), pipeline=pipeline.CPU_PIPELINE)


def build(function: tirx.PrimFunc, target: CpuTarget = TARGET) -> Callable[..., None]:
    """Compiles one kernel; the result takes NumPy arrays and writes its outputs into them."""
    compiled = build_module(function, target)["kernel"]

    def call(*arrays: np.ndarray) -> None:
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        compiled(*tensors)
        for array, tensor in zip(arrays, tensors, strict=True):
            array[...] = tensor.numpy()

    return call
