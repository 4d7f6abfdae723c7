"""The part of wgpu-native's C interface that is declared here, against the headers of the installed wheel."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("wgpu_native_layout.cc")


def compiler_errors(*options: str) -> str:
    spec = importlib.util.find_spec("wgpu")
    assert spec is not None
    assert spec.submodule_search_locations
    headers = Path(spec.submodule_search_locations[0]) / "resources"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-fsyntax-only", "-w", "-isystem", str(headers)]
    command += [*options, "-I", str(ROOT / "cpp"), str(SOURCE)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode == 0) == (not result.stderr)
    return result.stderr


def test_structures_and_numbers_are_those_of_the_wheel() -> None:
    assert compiler_errors() == ""


def test_a_member_more_would_be_seen(tmp_path: Path) -> None:
    header = (ROOT / "cpp" / "device" / "webgpu" / "wgpu_native.h").read_text()
    changed = tmp_path / "device" / "webgpu" / "wgpu_native.h"
    changed.parent.mkdir(parents=True)
    changed.write_text(header.replace("  Bool mapped_at_creation;", "  Bool mapped_at_creation;\n  uint64_t more;"))
    assert "BufferDescriptor" in compiler_errors("-I", str(tmp_path))
