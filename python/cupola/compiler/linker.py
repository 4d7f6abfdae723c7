"""Linking for machines other than this one: which command makes a shared library of objects for them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from cupola import processor
from cupola.compiler.cpu_target import CpuTarget
from cupola.errors import StorageError

# Objects call the run-time library and libm by name; the process that loads the library has both.
_ELF = ("-shared", "-fPIC")
_MACH_O = ("-dylib", "-arch", "arm64", "-platform_version", "macos", "11.0", "11.0", "-undefined", "dynamic_lookup")


def linker_for(host: CpuTarget) -> Callable[..., None] | None:
    """What `export_library` calls as `fcompile`; None: TVM's own choice, the C++ compiler of this machine.

    Raises:
        StorageError: there is none for such a machine.
    """
    if (host.machine, host.system) == (processor.machine(), "linux"):
        return None
    command = _command(host)

    def link(output: str, objects: Sequence[str], options: Sequence[str] | None = None) -> None:
        done = subprocess.run(
            [*command, "-o", output, *objects, *(options or ())], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr or f"{command[0]} ended with exit code {done.returncode}")

    return link


def _command(host: CpuTarget) -> tuple[str, ...]:
    """GNU's cross compiler for Linux, LLVM's linker for macOS, or Zig's."""
    if host.system == "linux" and (gnu := shutil.which(f"{host.machine}-linux-gnu-g++")):
        return (gnu, *_ELF)
    if host.system == "macos" and (lld := _lld("ld64.lld")):
        return (lld, *_MACH_O)
    if importlib.util.find_spec("ziglang") and host.system == "linux":
        return (sys.executable, "-m", "ziglang", "cc", "-target", f"{host.machine}-linux-gnu", *_ELF)
    debian = f"g++-{host.machine.replace('_', '-')}-linux-gnu" if host.system == "linux" else "lld-19"
    hint = f"`apt-get install {debian}`" + (", or `pip install ziglang`" if host.system == "linux" else "")
    raise StorageError(f"no linker for {host.machine} {host.system} is installed", hint=hint)


def _lld(name: str) -> str | None:
    """One of LLVM's linkers, the newest that is installed."""
    names = (*(f"{name}-{version}" for version in range(30, 15, -1)), name)
    return next((path for path in map(shutil.which, names) if path), None)
