"""Builds kernels for WebGPU, runs them on the first adapter (Mesa's lavapipe where there is no GPU), with NumPy arrays.

run(kernel, a, b, out)        a PrimFunc; every array comes back as the kernel left it
module = build(ir_module)     Relax functions through TVM's virtual machine
module["forward"](a, b)       returns NumPy arrays
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx

from cupola.engine.native_webgpu import load_webgpu

TARGET = tvm.target.Target(
    {
        "kind": "webgpu",
        "max_num_threads": 256,
        "max_shared_memory_per_block": 16384,
        "thread_warp_size": 1,
    },
    host={"kind": "llvm", "mcpu": "x86-64-v3"},
)


@cache
def device() -> tvm.runtime.Device:
    """The first adapter, ready for use by TVM."""
    load_webgpu()
    return tvm.device("webgpu", 0)


def to_device(array: np.ndarray) -> tvm.runtime.Tensor:
    return tvm.runtime.tensor(np.ascontiguousarray(array), device=device())


def build_kernel(function: tirx.PrimFunc, target: tvm.target.Target = TARGET) -> tvm.runtime.Module:
    """One scheduled kernel, as a library that was written to a file and loaded; its function is `kernel`."""
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return loaded(tvm.tirx.build(module, target=target))


def run(function: tirx.PrimFunc, *arguments: np.ndarray | int | float, target: tvm.target.Target = TARGET) -> None:
    """Runs a scheduled kernel; each array of `arguments` is what the kernel left in it afterwards."""
    kernel = build_kernel(function, target)["kernel"]
    device()
    tensors = [to_device(value) if isinstance(value, np.ndarray) else value for value in arguments]
    kernel(*tensors)
    for array, tensor in zip(arguments, tensors, strict=True):
        if isinstance(array, np.ndarray):
            array[...] = tensor.numpy()


class Program:
    """The functions of a compiled module in a virtual machine on the device."""

    def __init__(self, library: tvm.runtime.Module) -> None:
        self._machine = relax.VirtualMachine(library, device())

    def __getitem__(self, name: str) -> Callable[..., object]:
        function = self._machine[name]

        def call(*arguments: object) -> object:
            return _to_host(function(*[_to_argument(argument) for argument in arguments]))

        return call


def build(
    module: tvm.IRModule,
    target: tvm.target.Target = TARGET,
    pipeline: str | tvm.transform.Pass | None = "default",
) -> Program:
    """Relax functions, compiled for the device, written to a file, loaded into a virtual machine."""
    with target:
        executable = tvm.compile(module, target, relax_pipeline=pipeline)
    return Program(loaded(executable))


def loaded(compiled: tvm.runtime.Module | relax.VMExecutable) -> tvm.runtime.Module:
    device()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "lib.so")
        compiled.export_library(path)
        # The file may go as soon as the library is mapped.
        return tvm.runtime.load_module(path)


def _to_argument(argument: object) -> object:
    if isinstance(argument, np.ndarray):
        return to_device(argument)
    if isinstance(argument, list | tuple):
        return [_to_argument(item) for item in argument]
    return argument


def _to_host(result: object) -> object:
    if isinstance(result, tvm.runtime.Tensor):
        return result.numpy()
    if isinstance(result, tvm_ffi.Array | list | tuple):
        return [_to_host(item) for item in result]
    return result
