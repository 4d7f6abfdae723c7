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
_OPTIONS = {"linux": ("-shared", "-fPIC"), "macos": ("-shared", "-fPIC", "-Wl,-undefined,dynamic_lookup")}
_DEBIAN_NAMES = {"x86_64": "x86-64"}


def linker_for(host: CpuTarget) -> Callable[..., None] | None:
    """What `export_library` calls as `fcompile`; None: TVM's own choice, the C++ compiler of this machine.

    Raises:
        StorageError: there is none for such a machine.
    """
    if (host.machine, host.system) == (processor.machine(), "linux"):
        return None
    command = (*_command(host), *_OPTIONS[host.system])

    def link(output: str, objects: Sequence[str], options: Sequence[str] | None = None) -> None:
        done = subprocess.run(
            [*command, "-o", output, *objects, *(options or ())], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr or f"{command[0]} ended with exit code {done.returncode}")

    return link


def _command(host: CpuTarget) -> tuple[str, ...]:
    """GNU's cross compiler, or Zig's, which links for everybody."""
    gnu = shutil.which(f"{host.machine}-linux-gnu-g++")
    if gnu and host.system == "linux":
        return (gnu,)
    if importlib.util.find_spec("ziglang"):
        system = {"linux": "linux-gnu", "macos": "macos"}[host.system]
        return (sys.executable, "-m", "ziglang", "cc", "-target", f"{host.machine}-{system}")
    debian = f"g++-{_DEBIAN_NAMES.get(host.machine, host.machine)}-linux-gnu"
    packages = (
        f"`apt-get install {debian}`, or `pip install ziglang`" if host.system == "linux" else "`pip install ziglang`"
    )
    raise StorageError(f"no linker for {host.machine} {host.system} is installed", hint=packages)
