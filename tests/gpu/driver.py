"""Builds kernels for a kind of device, runs them on its first one, with NumPy arrays.

That is Mesa's lavapipe or a processor's OpenCL where there is no GPU.

    run(kernel, a, b, out)        a PrimFunc; every array comes back as the kernel left it
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx

from cupola.engine.native_devices import PLUGINS


@cache
def target_of(kind: str) -> tvm.target.Target:
    """What kernels for a kind of device are built for, as the product does."""
    fields = {"kind": kind, "max_num_threads": 256, "max_shared_memory_per_block": 16384, "thread_warp_size": 1}
    return tvm.target.Target(fields, host={"kind": "llvm", "mcpu": "x86-64-v3"})


@cache
def device(kind: str = "webgpu") -> tvm.runtime.Device:
    """The first device of a kind, ready for use by TVM."""
    PLUGINS[kind]()
    return tvm.device(kind, 0)


def to_device(array: np.ndarray, kind: str = "webgpu") -> tvm.runtime.Tensor:
    return tvm.runtime.tensor(np.ascontiguousarray(array), device=device(kind))


def build_kernel(function: tirx.PrimFunc, kind: str = "webgpu") -> tvm.runtime.Module:
    """One scheduled kernel, as a library that was written to a file and loaded; its function is `kernel`."""
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return loaded(tvm.tirx.build(module, target=target_of(kind)), kind)


def run(function: tirx.PrimFunc, *arguments: np.ndarray | int | float, kind: str = "webgpu") -> None:
    """Runs a scheduled kernel; each array of `arguments` is what the kernel left in it afterwards."""
    kernel = build_kernel(function, kind)["kernel"]
    tensors = [to_device(value, kind) if isinstance(value, np.ndarray) else value for value in arguments]
    kernel(*tensors)
    for array, tensor in zip(arguments, tensors, strict=True):
        if isinstance(array, np.ndarray):
            array[...] = tensor.numpy()


def loaded(compiled: tvm.runtime.Module, kind: str = "webgpu") -> tvm.runtime.Module:
    device(kind)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "lib.so")
        compiled.export_library(path)
        # The file may go as soon as the library is mapped.
        return tvm.runtime.load_module(path)
