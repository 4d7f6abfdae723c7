"""Tests of this folder need a device that WebGPU can use; without one they are skipped, which is a failure in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupola.engine.native_webgpu import webgpu_adapters
from cupola.errors import EngineError

_HERE = Path(__file__).parent

for _cases in ("engine_cases", "family_cases", "recording_cases", "window_cases"):
    pytest.register_assert_rewrite(_cases)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if _HERE in item.path.parents]
    missing = _obstacle() if ours else None
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


def _obstacle() -> str | None:
    try:
        return None if webgpu_adapters() else "no driver that WebGPU can use (apt-get install mesa-vulkan-drivers)"
    except EngineError as error:
        return str(error)
