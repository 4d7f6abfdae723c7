"""The part of OpenCL's C interface that is declared here, against Khronos' headers (Debian's opencl-c-headers)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("opencl_layout.cc")
OURS = Path("device") / "opencl" / "opencl_library.h"


def compiler_errors(*options: str, source: Path = SOURCE) -> str:
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-fsyntax-only", "-w", *options]
    command += ["-I", str(ROOT / "cpp"), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode == 0) == (not result.stderr)
    return result.stderr


@pytest.fixture(autouse=True)
def _headers(tmp_path: Path) -> None:
    (tmp_path / "any.cc").write_text("#define CL_TARGET_OPENCL_VERSION 120\n#include <CL/cl.h>\n")
    if compiler_errors(source=tmp_path / "any.cc"):
        pytest.skip("there are no headers of OpenCL (apt-get install opencl-c-headers)")


def test_functions_and_numbers_are_those_of_khronos() -> None:
    assert compiler_errors() == ""


@pytest.mark.parametrize(
    ("text", "other", "named"),
    [
        ("Mem, Bool, size_t, size_t, void*, ", "Mem, Bool, size_t, uint32_t, void*, ", "EnqueueReadBuffer"),
        ("Status (*Flush)(Queue);", "Status (*Flush)(Queue, int);", "Flush"),
        ("kBufferCreateRegion = 0x1220", "kBufferCreateRegion = 0x1221", "kBufferCreateRegion"),
    ],
)
def test_what_differs_would_be_seen(text: str, other: str, named: str, tmp_path: Path) -> None:
    header = (ROOT / "cpp" / OURS).read_text()
    assert text in header
    (tmp_path / OURS).parent.mkdir(parents=True)
    (tmp_path / OURS).write_text(header.replace(text, other))
    assert named in compiler_errors("-I", str(tmp_path))
