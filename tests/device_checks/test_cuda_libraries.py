"""What libraries for CUDA hold: machine code for one architecture and nothing to compile; kernels that keep within
their registers. All tests look at one layer of Llama 3 8B for one architecture; `make targets` at all of them, and at
models with experts and with latents."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from cupola.compiler.config import CompileConfig
from cupola.compiler.cuda import find_nvcc
from cupola.compiler.gpu_target import ARCHITECTURES, resolve_gpu
from cupola.engine.accelerators import find
from device_checks import nvidia
from device_checks.shapes import compile_shape

ALL = bool(os.environ.get("CUPOLA_TARGET_ROWS"))
pytestmark = pytest.mark.timeout(600)  # nvcc takes ten seconds, and minutes on a busy machine
NEEDS_NVCC = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
ARCHS = [architecture.name for architecture in ARCHITECTURES["cuda"]] if ALL else ["sm_90"]
# Shape, layers that are not alike, scheme.
MODELS = [("llama-3-8b", 1, "q4")]
MORE = [("llama-3-8b", 1, "f16"), ("llama-3-8b", 1, "bf16"), ("llama-3-8b", 1, "q8"), ("qwen3-30b-a3b", 1, "q4")]
MORE += [("deepseek-v2-lite", 2, "q4")]
# Of sm_80 to sm_100: registers of a multiprocessor, static shared memory of a block, and what the driver keeps of it.
REGISTERS, SHARED_BYTES, RESERVED = 65536, 49152, 1024
# ptxas keeps so much of a thread in memory where another block of threads fits then: one kernel of four libraries.
KEPT_BYTES = 16
FILES = ("libcuda", "libcudart", "libnvrtc", "libtvm")


Compiled = Callable[[str, int, str, str], Path]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    @cache
    def one(shape: str, layers: int, quant: str, arch: str) -> Path:
        folder = tmp_path_factory.mktemp("cuda")
        compile_shape(shape, CompileConfig().with_quant(quant), [resolve_gpu("cuda", arch)], folder, layers)
        return folder

    return one


@NEEDS_NVCC
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("shape", "layers", "quant"), [*MODELS, *(MORE if ALL else [])])
def test_a_library_is_machine_code_that_stays_in_registers(
    compiled: Compiled, shape: str, layers: int, quant: str, arch: str
) -> None:
    library = (compiled(shape, layers, quant, arch) / "lib.so").read_bytes()
    (code,) = nvidia.read_cubins(library)
    assert code.arch == arch
    assert nvidia.sources(library) == ()
    assert not [name for name in nvidia.needed_libraries(library) if name.startswith(FILES)]
    assert len(code.kernels) > 30
    for kernel in code.kernels:
        assert kernel.local_bytes <= KEPT_BYTES, f"{kernel} keeps something in memory that belongs into registers"
        assert kernel.registers <= 255, kernel
        assert kernel.registers * kernel.threads <= REGISTERS, f"{kernel} cannot be launched"
        assert kernel.shared_bytes <= SHARED_BYTES + RESERVED, kernel


LOAD = """
import sys
from pathlib import Path
from cupola.engine.choice import choose
from cupola.engine.native_model import load_compiled
from cupola.errors import CupolaError
from cupola.manifest import FILE_NAME, Manifest
folder = Path(sys.argv[1])
manifest = Manifest.model_validate_json((folder / FILE_NAME).read_text())
for load in (choose, lambda manifest: load_compiled(folder, manifest)):
    try:
        load(manifest)
    except CupolaError as error:
        print(type(error).__name__, error.message, error.hint)
"""


@NEEDS_NVCC
@pytest.mark.skipif(any(device.kind == "cuda" for device in find()), reason="there is a GPU that CUDA can use")
def test_without_cuda_a_library_is_refused_with_what_is_missing(compiled: Compiled) -> None:
    """In a process of its own: the compiler puts something in the driver's place."""
    folder = compiled(*MODELS[0], "sm_90")
    command = [sys.executable, "-c", LOAD, str(folder)]
    chosen, loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert chosen.startswith("IncompatibleError the model llama-3-8b cannot run here: lib.so is for sm_90, but this")
    assert loaded.startswith("EngineError TVM's runtime for CUDA cannot be loaded")
    assert "libcuda.so.1" in loaded


def test_sources_in_a_library_are_found() -> None:
    container = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 32 + 32 + 5)
    container += struct.pack("<HHIQ", 2, 0, 32, 0) + bytes(16) + struct.pack("<HHIQ", 1, 0, 32, 5) + bytes(21)
    assert nvidia.sources(b"\0" + container) == ("an entry of kind 1 in a container",)
    assert nvidia.sources(b"\0 extern __global__ void k()") == ("CUDA C++",)
    assert nvidia.sources(b".version 8.7\n.visible .entry k(") == ("PTX",)
