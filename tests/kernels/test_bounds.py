"""No kernel reads or writes beside its tensors: guard pages on either side, in a process of its own.

pytest tests/kernels/test_bounds.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from kernels.guarded import Side
from kernels.run_guarded import RIGHT, WRONG

TESTS = Path(__file__).resolve().parents[1]


def run(group: str, *sides: Side) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kernels.run_guarded", group, *(side.value for side in sides)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(TESTS)}
    )


@pytest.fixture(scope="module")
def right() -> Iterator[Mapping[str, Future[subprocess.CompletedProcess[str]]]]:
    """All groups of right kernels, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {group: pool.submit(run, group, *Side) for group in RIGHT}


@pytest.mark.parametrize("group", RIGHT)
def test_kernels_stay_within_their_tensors(
    right: Mapping[str, Future[subprocess.CompletedProcess[str]]], group: str
) -> None:
    result = right[group].result()
    last = result.stdout.splitlines()[-1:]
    assert result.returncode == 0, f"ended with {result.returncode} in {last}\n{result.stderr[-2000:]}"
    assert result.stdout


@pytest.mark.parametrize("group", WRONG)
def test_a_wrong_kernel_dies_at_the_guard(group: str) -> None:
    side = Side.BEFORE if group.endswith("before") else Side.BEHIND
    result = run(group, side)
    assert result.returncode == -signal.SIGSEGV, result.stderr
    assert group in result.stdout.splitlines()[-1]


@pytest.mark.parametrize("group", [group for group in WRONG if group.startswith("writes")])
def test_a_write_on_the_side_without_a_guard_is_seen_too(group: str) -> None:
    side = Side.BEHIND if group.endswith("before") else Side.BEFORE
    result = run(group, side)
    assert result.returncode == 1
    assert "was written beside" in result.stderr
