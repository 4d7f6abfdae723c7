"""Compiled kernels of earlier runs, under a key made of the kernel's TIR, the target, TVM and our lowering.

Most of what tests of kernels take is LLVM's time, and most kernels are those of the run before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from functools import cache
from pathlib import Path

import tvm
from tvm import tirx

from cupola.compiler import pipeline
from cupola.compiler.target import CpuTarget

FOLDER = Path(__file__).resolve().parents[2] / "build" / "kernels"
KEPT_DAYS = 7  # after the last use


def path_of(function: tirx.PrimFunc, target: CpuTarget) -> Path:
    """Where the library of this kernel is, or has to be."""
    key = hashlib.sha256(lowering().encode())
    for part in (tvm.ir.save_json(function), str(target.tvm_target())):
        key.update(part.encode())
    return FOLDER / f"{key.hexdigest()[:40]}.so"


def keep(module: tvm.runtime.Module, library: Path) -> None:
    """Stores a compiled kernel; several processes may do so at once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = library.with_suffix(f".{os.getpid()}.so")
    module.export_library(str(unfinished), fcompile=_link)
    unfinished.replace(library)


def forget_unused() -> None:
    """Removes what no run of the last days has used."""
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for file in (*FOLDER.glob("*.so"), *FOLDER.glob("*.ptx")):
        with contextlib.suppress(FileNotFoundError):  # another process has given it its name, or removed it
            if file.stat().st_atime < oldest:
                file.unlink()


@cache
def lowering() -> str:
    """What decides, beside a kernel and its target, what is compiled."""
    return Path(pipeline.__file__).read_text() + tvm.__version__


def _link(library: str, objects: list[str], _options: object = None) -> None:
    """A tenth of the time of the compiler's driver: a kernel needs no library."""
    subprocess.run(["ld", "-shared", "-o", library, *objects], check=True)
