"""Tests of this folder need a device; without one they are skipped, which is a failure in CI. See `kinds.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu.kinds import KINDS, chosen, obstacle

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        missing = obstacle(_kind_of(item))
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", chosen(metafunc.module.__name__), scope="session")


def _kind_of(item: pytest.Item) -> str:
    """Tests that do not take a kind are WebGPU's."""
    call = getattr(item, "callspec", None)
    return call.params.get("kind", KINDS[0]) if call else KINDS[0]
