"""Tests of this folder need NVIDIA's compiler and its headers; without them they are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cupola.compiler.cuda import find_nvcc

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = _obstacle()
    for item in items:
        if missing and _HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=missing))


def _obstacle() -> str | None:
    if find_nvcc() is None:
        return "nvcc is not installed"
    return "nvcc does not bear a sanitizer's library" if "LD_PRELOAD" in os.environ else None
