"""AMD's code objects: the device libraries that kernels are linked with, and the linker.

TVM asks for both through two functions by name. Its own would link the libraries of several processors and both answers
to every option, of which the first wins, and would take a linker of LLVM's first versions, which do not know the ABI of
the code that LLVM 22 makes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cupola.errors import StorageError

_FOLDERS = ("/opt/rocm/amdgcn/bitcode", "/usr/lib/x86_64-linux-gnu/amdgcn/bitcode")
_OPTIONS = ("daz_opt_off", "correctly_rounded_sqrt_on", "finite_only_off", "unsafe_math_off", "abi_version_500")
_OLDEST_LLD = 17  # that knows version 5 of the code object ABI


def bitcode_folder() -> Path | None:
    """Where AMD's device libraries are: $ROCM_PATH, ROCm's own place, or Debian's (rocm-device-libs)."""
    own = [f"{os.environ['ROCM_PATH']}/amdgcn/bitcode"] if "ROCM_PATH" in os.environ else []
    return next((Path(folder) for folder in (*own, *_FOLDERS) if (Path(folder) / "ocml.bc").is_file()), None)


def find_linker() -> tuple[str, ...] | None:
    """A linker of LLVM that is new enough: an installed one, or Zig's."""
    for version in range(_OLDEST_LLD + 10, _OLDEST_LLD - 1, -1):
        if found := shutil.which(f"ld.lld-{version}"):
            return (found,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "ld.lld")
    rocm = Path("/opt/rocm/llvm/bin/ld.lld")
    return (str(rocm),) if rocm.is_file() else None


def device_libraries(folder: Path, arch: str, warp: int) -> list[str]:
    """The files for one architecture, in the order in which they are linked.

    A folder older than the architecture has no file that says its version; the nearest older one of the folder will do,
    because the mathematical functions ask only for capabilities that later versions kept.
    """
    number = _version(arch.removeprefix("gfx"))
    versions = {_version(path.stem.rpartition("_")[2]): path for path in folder.glob("oclc_isa_version_*.bc")}
    nearest = max((version for version in versions if version <= number), default=None)
    if nearest is None:
        raise StorageError(f"`{folder}` has no library for {arch}", hint="install AMD's device libraries")
    options = [folder / f"oclc_{name}.bc" for name in (*_OPTIONS, f"wavefrontsize64_{'on' if warp == 64 else 'off'}")]
    return [str(path) for path in (folder / "ocml.bc", *options, versions[nearest])]


def register(arch: str, warp: int) -> None:
    """Makes TVM link code for one architecture as this module says. StorageError: something is not installed."""
    import tvm_ffi

    folder, linker = bitcode_folder(), find_linker()
    if folder is None:
        raise StorageError("AMD's device libraries are not installed", hint="`apt-get install rocm-device-libs`")
    if linker is None:
        raise StorageError(
            "there is no linker for AMD's code", hint="`apt-get install lld-19`, or `pip install ziglang`"
        )
    files = device_libraries(folder, arch, warp)

    def link(code: bytes) -> bytearray:
        with tempfile.TemporaryDirectory() as work:
            source, output = Path(work) / "kernels.o", Path(work) / "kernels.hsaco"
            source.write_bytes(bytes(code))
            command = [*linker, "--no-undefined", "-shared", str(source), "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr or "the linker for AMD's code failed")
            return bytearray(output.read_bytes())

    tvm_ffi.register_global_func("tvm_callback_rocm_bitcode_path", lambda: files, override=True)
    tvm_ffi.register_global_func("tvm_callback_rocm_link", link, override=True)


def _version(name: str) -> tuple[int, int, int]:
    """90a is 9, 0, 10; the last two digits are hexadecimal."""
    found = re.fullmatch(r"(\d+)([0-9a-f])([0-9a-f])", name)
    return (int(found[1]), int(found[2], 16), int(found[3], 16)) if found else (0, 0, 0)
