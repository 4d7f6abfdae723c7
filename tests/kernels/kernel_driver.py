"""Builds one kernel by itself and calls it with NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("TVM_BIND_THREADS", "0")
os.environ.setdefault("TVM_NUM_THREADS", "2")

import numpy as np
import tvm
from tvm import tirx

from cupola.compiler import pipeline
from cupola.compiler.config import TargetConfig
from cupola.compiler.target import CpuTarget, resolve
from cupola.kernels.cpu.isa import AVX2, PLAIN, Isa

TARGET: CpuTarget = resolve(TargetConfig())
INSTRUCTION_SETS: tuple[Isa, ...] = (PLAIN, AVX2) if TARGET.isa == "avx2" else (PLAIN,)


def build(function: tirx.PrimFunc) -> Callable[..., None]:
    """Compiles one kernel; the result takes NumPy arrays and writes its outputs into them."""
    pipeline.register()
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    compiled = tvm.tirx.build(module, target=TARGET.tvm_target(), pipeline=pipeline.CPU_PIPELINE)["kernel"]

    def call(*arrays: np.ndarray) -> None:
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        compiled(*tensors)
        for array, tensor in zip(arrays, tensors, strict=True):
            array[...] = tensor.numpy()

    return call
