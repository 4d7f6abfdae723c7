"""Kernels that a library carries as source, through a compiler's front end: Metal's as C++, OpenCL's as OpenCL C.

clang knows OpenCL C. Of Metal's language it knows the C++14 that it is made of; `metal/metal_stdlib` declares the
vectors and functions that kernels use. So types, names and calls are checked, but not what only Apple's compiler knows:
address spaces and resource limits.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

CLANG = "clang-19"
_METAL = ("-x", "c++", "-std=c++14", "-Wno-everything", "-I", str(Path(__file__).with_name("metal")))
_OPENCL = ("-x", "cl", "-cl-std=CL1.2", "-Xclang", "-finclude-default-header")


def missing() -> str | None:
    """The tool that is not installed."""
    return None if shutil.which(CLANG) else "clang-19 is not installed"


def metal_sources(library: bytes) -> list[str]:
    """The source of every Metal kernel in a compiled library."""
    return [_printable(library[at.start() :]) for at in re.finditer(b"#include <metal_stdlib>", library)]


def opencl_sources(library: bytes) -> list[str]:
    """The OpenCL program in a compiled library: all kernels in one text."""
    return [
        _printable(library[at.start() :]) for at in re.finditer(rb"(#[^\n]*\n|// Function: \w+\n)+__kernel", library)
    ][:1]


def metal_errors(source: str) -> str:
    """What the front end has against a kernel of Metal; nothing is good."""
    return _errors(source, _METAL)


def opencl_errors(source: str) -> str:
    """What the front end has against a program of OpenCL; nothing is good."""
    return _errors(source, _OPENCL)


def _errors(source: str, options: tuple[str, ...]) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(source)
        file.flush()
        command = [CLANG, *options, "-fsyntax-only", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def _printable(data: bytes) -> str:
    """The text at the beginning of some data, up to the first byte that no source has."""
    end = re.search(rb"[^\t\n\r\x20-\x7e]", data)
    text = data[: end.start() if end else None].decode("ascii")
    return text[: text.rindex("}") + 1]
