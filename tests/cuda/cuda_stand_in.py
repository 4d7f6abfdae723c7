"""CUDA without a GPU: builds both of NVIDIA's libraries from `tests/cuda/machine`, which execute kernels by
interpreting their PTX (`tests/ptx`), and says how processes find them.

`environment()` makes every program of a child process use them, TVM's own runtime for CUDA first. `StandIn` is for
processes that want to see what is called: what it loads, whoever asks for CUDA afterwards gets.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from compiled import compiled_folder  # noqa: E402
from cupola.compiler.cuda import find_nvcc  # noqa: E402
from cupola.weights.cache import cache_root  # noqa: E402
from ptx.build import compiler  # noqa: E402
from ptx.build import library as interpreters_library  # noqa: E402

MACHINE = TESTS / "cuda" / "machine"
RUNTIME, DRIVER = "libcudart.so.13", "libcuda.so.1"  # what TVM is linked with
CUDA = 2  # the kind of device, by DLPack
# nvcc's options are Cupola's own; these add the PTX of the same kernels, as text, beside their machine code.
_WITH_PTX = "-gencode arch=compute_{0},code=compute_{0} --no-compress"
_NOTHING = b".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry nothing() { ret; }\n"


def libraries() -> Path:
    """A folder with both libraries; they are made again when their source has changed."""
    interpreter = interpreters_library()
    sources = sorted(path for path in MACHINE.iterdir() if path.suffix in (".cc", ".h"))
    key = hashlib.sha256(interpreter.name.encode())
    for path in sources:
        key.update(path.name.encode() + path.read_bytes())
    folder = TESTS.parent / "build" / "cuda_stand_in" / key.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / RUNTIME).exists():
            _build([path for path in sources if path.suffix == ".cc"], interpreter, folder)
    return folder


def environment(arch: str = "sm_90") -> dict[str, str]:
    """This process's environment, with a GPU of the architecture."""
    paths = [str(libraries()), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths)), "CUPOLA_CUDA_ARCH": arch}


def folder_with_ptx(model: str, quant: str, arch: str = "sm_90", config: Path | None = None) -> Path:
    """What `compiled_folder` gives for CUDA, whose kernels are there as PTX too; in a cache of its own."""
    variables = {
        "NVCC_APPEND_FLAGS": _WITH_PTX.format(arch.removeprefix("sm_")),
        "CUPOLA_HOME": str(cache_root() / "with-ptx"),
    }
    return compiled_folder(model, quant, config, f"cuda:{arch}", variables)


def _build(sources: list[Path], interpreter: Path, folder: Path) -> None:
    nvcc = find_nvcc()  # knows where its headers are, and hands C++ to the usual compiler
    assert nvcc is not None, "the toolkit's headers are needed"
    command = [str(nvcc), "-std=c++17", "-O2", "-I", str(TESTS), "-Xcompiler", "-fPIC,-Wall,-Wextra,-Werror"]

    def compiled(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        subprocess.run([*command, "-c", str(source), "-o", str(made)], check=True)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    runtime = [made for made in objects if made.stem == "runtime"]
    driver = [made for made in objects if made not in runtime]
    _link(DRIVER, [*driver, interpreter], [f"-Wl,-rpath,{interpreter.parent}"], folder)
    versions = folder / "versions"
    versions.write_text(f"{RUNTIME} {{ global: cuda*; local: *; }};\n")
    script = [f"-Wl,--version-script={versions}", "-Wl,-rpath,$ORIGIN"]
    _link(RUNTIME, [*runtime, folder / DRIVER], script, folder)


def _link(name: str, inputs: list[Path], options: list[str], folder: Path) -> None:
    unfinished = folder / f"{name}.unfinished"
    linked = [compiler(), "-shared", "-pthread", "-Wl,--no-undefined", f"-Wl,-soname,{name}", *options]
    subprocess.run([*linked, *map(str, inputs), "-o", str(unfinished)], check=True)
    unfinished.rename(folder / name)


class StandIn:
    """The libraries in `folder`, loaded for everybody in this process."""

    def __init__(self, folder: Path) -> None:
        import tvm_ffi

        from cupola.engine.native_model import load_runtime

        self._driver = ctypes.CDLL(str(folder / DRIVER), ctypes.RTLD_GLOBAL)
        self._runtime = ctypes.CDLL(str(folder / RUNTIME), ctypes.RTLD_GLOBAL)
        for function in (self._driver.stand_in_written, self._driver.stand_in_executed):
            function.restype = ctypes.c_char_p
        load_runtime("cuda")
        tvm_ffi_library = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi())
        self._stream = tvm_ffi_library.TVMFFIEnvGetStream
        self._stream.restype = ctypes.c_void_p
        self._nothing = self._load_nothing()

    def written(self) -> list[str]:
        """What was called since it was last asked."""
        return list(self._driver.stand_in_written().decode().splitlines())

    def executed(self) -> dict[str, int]:
        """Kernels, and how often they were executed."""
        lines = (line.split() for line in self._driver.stand_in_executed().decode().splitlines())
        return {name: int(times) for name, times in lines}

    def alive(self) -> int:
        """Graphs of both kinds that were not destroyed."""
        return int(self._driver.stand_in_alive())

    def fail(self, function: str) -> None:
        """Let the next call of a function fail."""
        self._driver.stand_in_fail(function.encode())

    def stream(self) -> int | None:
        """Where TVM launches the kernels of this thread; None: the default stream."""
        found: int | None = self._stream(CUDA, 0)
        return found

    def launch(self) -> None:
        """A kernel that does nothing, where TVM would launch it."""
        config = (ctypes.c_uint * 16)(1, 1, 1, 1, 1, 1)
        ctypes.cast(ctypes.byref(config, 32), ctypes.POINTER(ctypes.c_void_p))[0] = self.stream()
        error = self._driver.cuLaunchKernelEx(config, self._nothing, None, None)
        assert error == 0, error

    def _load_nothing(self) -> ctypes.c_void_p:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._runtime.cudaSetDevice(0)
        self._driver.cuModuleLoadData(ctypes.byref(module), _NOTHING)
        self._driver.cuModuleGetFunction(ctypes.byref(function), module, b"nothing")
        return function


def main() -> None:
    """python tests/cuda/cuda_stand_in.py COMMAND...: the command, with a GPU; without nvcc as it is."""
    if find_nvcc() is None:
        print("nvcc is not installed, so that there is no stand-in for CUDA's libraries", file=sys.stderr)
        os.execvp(sys.argv[1], sys.argv[1:])
    os.execvpe(sys.argv[1], sys.argv[1:], environment(os.environ.get("CUPOLA_CUDA_ARCH", "sm_90")))


if __name__ == "__main__":
    main()
