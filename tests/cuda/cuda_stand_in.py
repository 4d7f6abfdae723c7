"""CUDA without a GPU: builds tests/native/cuda_stand_in.c and loads it, with TVM's own runtime for CUDA on top.

For processes of their own: what it loads, whoever asks for CUDA afterwards gets.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import tvm_ffi

from cupola.engine.native_model import load_runtime

SOURCE = Path(__file__).with_suffix(".c")
RUNTIME, DRIVER = "libcudart.so.13", "libcuda.so.1"  # what TVM is linked with; the first has both's functions here
CUDA = 2  # the kind of device, by DLPack


def build(folder: Path) -> None:
    """Writes both libraries into `folder`."""
    compiler = shutil.which("cc") or shutil.which("g++") or "c++"
    versions = folder / "versions"
    versions.write_text(f"{RUNTIME} {{ global: *; }};\n")
    source, shared = ["-x", "c", str(SOURCE)], ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    script = f"-Wl,--version-script={versions}"
    subprocess.run(
        [compiler, *shared, f"-Wl,-soname,{RUNTIME}", script, *source, "-o", str(folder / RUNTIME)], check=True
    )
    nothing = ["-x", "c", "/dev/null"]
    subprocess.run([compiler, *shared, f"-Wl,-soname,{DRIVER}", *nothing, "-o", str(folder / DRIVER)], check=True)


class StandIn:
    """The libraries in `folder`, loaded for everybody in this process."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(str(folder / RUNTIME), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / DRIVER), ctypes.RTLD_GLOBAL)
        self._library.stand_in_written.restype = ctypes.c_char_p
        load_runtime("cuda")
        environment = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi())
        self._stream = environment.TVMFFIEnvGetStream
        self._stream.restype = ctypes.c_void_p

    def written(self) -> list[str]:
        """What was called since it was last asked."""
        return list(self._library.stand_in_written().decode().splitlines())

    def alive(self) -> int:
        """Graphs of both kinds that were not destroyed."""
        return int(self._library.stand_in_alive())

    def fail(self, function: str) -> None:
        """Let the next call of a function fail."""
        self._library.stand_in_fail(function.encode())

    def stream(self) -> int | None:
        """Where TVM launches the kernels of this thread; None: the default stream."""
        found: int | None = self._stream(CUDA, 0)
        return found

    def launch(self) -> None:
        """A kernel, where TVM would launch it."""
        config = (ctypes.c_uint * 10)()
        ctypes.cast(ctypes.byref(config, 32), ctypes.POINTER(ctypes.c_void_p))[0] = self.stream()
        self._library.cuLaunchKernelEx(config, None, None, None)
