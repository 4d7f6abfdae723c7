"""Kernels of this folder are executed on WebGPU, and those of some modules on OpenCL too: `tests/gpu/kinds.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu_cases import Executing

from gpu.kinds import KINDS, chosen, obstacle


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("gpu"):
        kinds = chosen(metafunc.module.__name__)
        metafunc.parametrize("executing", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def executing(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of device that `gpu_cases.build` builds for."""
    kind = getattr(request, "param", KINDS[0])
    Executing.kind = kind
    yield kind
    Executing.kind = KINDS[0]


@pytest.fixture(autouse=True)
def _there_is_one(request: pytest.FixtureRequest, executing: str) -> None:
    if request.node.get_closest_marker("gpu") and obstacle(executing):
        pytest.skip(obstacle(executing))
