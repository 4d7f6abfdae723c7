"""Chaos: what the scenarios share. Each prints its numbers at the end of the run, beside having passed.

`make chaos` runs them at full size; an ordinary run takes a part of each, small enough for every change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from cupola.engine.native_library import native

FULL = os.environ.get("CUPOLA_CHAOS") == "full"


@pytest.fixture
def full() -> bool:
    """Whether this run is to be as large as the scenario says."""
    return FULL


@pytest.fixture
def failpoints() -> Iterator[Callable[[str], None]]:
    """Sets faults of this process's engines; all of them are off again after the test."""
    yield native("testing.set_failpoints")
    native("testing.set_failpoints")("")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is chaos."""
    for item in items:
        if item.path.parent.name == "chaos":
            item.add_marker(pytest.mark.chaos)
            if FULL:
                item.add_marker(pytest.mark.timeout(600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A table of what the scenarios measured."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and "/chaos/" in report.nodeid and report.user_properties
    ]
    if not reports:
        return
    terminalreporter.section("chaos, full size" if FULL else "chaos, a part of it")
    for report in reports:
        terminalreporter.write_line(report.nodeid.partition("::")[2])
        for name, value in report.user_properties:
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            terminalreporter.write_line(f"    {name:<44} {shown}")
