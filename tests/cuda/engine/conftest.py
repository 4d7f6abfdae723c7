"""Tests of this folder run in a process that has the stand-in for NVIDIA's libraries: `make cuda-engine`, or

    python tests/cuda/cuda_stand_in.py python -m pytest -m cuda_engine tests/cuda/engine

Elsewhere they are left out, because a process that has loaded CUDA's libraries keeps them for all that it runs later.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from cupola.compiler.cuda import find_nvcc

_HERE = Path(__file__).parent

for _cases in ("engine_cases", "family_cases", "recording_cases", "window_cases"):
    pytest.register_assert_rewrite(_cases)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if _HERE in item.path.parents]
    missing = _obstacle() if ours else None
    for item in ours:
        item.add_marker(pytest.mark.cuda_engine)
        item.add_marker(pytest.mark.timeout(600))
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


def _obstacle() -> str | None:
    if find_nvcc() is None:
        return "nvcc is not installed"
    try:
        found = hasattr(ctypes.CDLL("libcuda.so.1"), "stand_in_alive")
    except OSError:
        found = False
    return None if found else "this process has no stand-in for CUDA; hint: make cuda-engine"
