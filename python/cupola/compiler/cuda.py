"""CUDA ahead of time: machine code in the library, so that the machine that serves needs no compiler.

TVM hands its source to a compiler only while its own CUDA runtime is loaded, which asks for the driver. Where there is
none, a stand-in takes its place: a library made here and now, whose every function says that there is no device. It
lives in this process alone, and nothing is ever executed with it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cupola.errors import StorageError

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_DRIVER = "libcuda.so.1"
_RUNTIME = "libcudart.so.13"  # what this TVM is linked with
# How TVM calls nvcc. Left to itself it asks ptxas for the highest level of register usage, at which some kernels spill
# that otherwise do not, and for fast arithmetic, which divides approximately and flushes small numbers.
_SETTINGS = {
    "TVM_CUDA_COMPILE_MODE": "nvcc",
    "TVM_CUDA_PTXAS_REG_LEVEL": "5",
    "TVM_CUDA_NVCC_NO_FAST_MATH": "1",
}
_DRIVER_FUNCTIONS = (
    "cuDeviceGetName",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuLaunchKernelEx",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuTensorMapEncodeTiled",
)


def find_nvcc() -> Path | None:
    """The compiler: on the path, or in the toolkit's usual place."""
    found = shutil.which("nvcc")
    usual = Path("/usr/local/cuda/bin/nvcc")
    return Path(found) if found else usual if usual.is_file() else None


@contextmanager
def compiler() -> Iterator[None]:
    """TVM makes machine code of CUDA within.

    Raises:
        StorageError: the toolkit is not installed, or is of another version than TVM's runtime.
    """
    nvcc = _load()
    # TVM calls it by its name alone.
    settings = _SETTINGS | {"PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), str(nvcc.parent)])}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def source_only() -> Iterator[None]:
    """TVM compiles no source within, whether or not its CUDA runtime is loaded; for those who compile it themselves."""
    import tvm

    name = "tvm_callback_cuda_compile"
    usual = tvm.get_global_func(name, allow_missing=True)
    tvm.register_global_func(name, lambda _source: b"", override=True)
    try:
        yield
    finally:
        if usual is not None:
            tvm.register_global_func(name, usual, override=True)


@cache
def _load() -> Path:
    """Loads TVM's CUDA runtime, once; gives nvcc's place."""
    import tvm

    nvcc = find_nvcc()
    if nvcc is None:
        raise StorageError("nvcc is not installed", hint="install NVIDIA's CUDA toolkit, version 13")
    if tvm.get_global_func("device_api.cuda", allow_missing=True) is not None:
        return nvcc
    if not _loads(_DRIVER):
        _load_stand_in()
    runtime = nvcc.resolve().parent.parent / "lib64" / _RUNTIME
    if not _loads(str(runtime)) and not _loads(_RUNTIME):
        raise StorageError(f"{_RUNTIME} is not installed", hint="install NVIDIA's CUDA toolkit, version 13")
    library = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_cuda.so"
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise StorageError(f"TVM's CUDA runtime cannot be loaded: {error}") from error
    return nvcc


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _load_stand_in() -> None:
    """A library that the dynamic linker takes for the driver."""
    functions = "".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in _DRIVER_FUNCTIONS)
    compilers = (shutil.which(name) for name in ("cc", "gcc", "clang", "g++"))
    command = next((found for found in compilers if found), None)
    if command is None:
        raise StorageError("no C compiler is installed", hint="`apt-get install g++`")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / _DRIVER
        arguments = ["-shared", "-fPIC", f"-Wl,-soname,{_DRIVER}", "-x", "c", "-", "-o", str(library)]
        done = subprocess.run([command, *arguments], input=functions, capture_output=True, text=True, check=False)
        if done.returncode or not _loads(str(library)):
            raise StorageError(f"the C compiler {command} fails: {done.stderr.strip()[-200:]}")
