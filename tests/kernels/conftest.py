"""The cache of compiled kernels does not grow for ever."""

from __future__ import annotations

import pytest

from kernels import kernel_cache


@pytest.fixture(scope="session", autouse=True)
def _tidy() -> None:
    kernel_cache.forget_unused()
