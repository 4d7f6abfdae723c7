"""What the machine reaches: rates of a plausible size, and none where none can be had."""

from __future__ import annotations

import pytest

from cupola.bench.limits import measure_bandwidth, measure_integer_peak


def test_the_bandwidth_is_that_of_some_memory() -> None:
    bandwidth = measure_bandwidth(1, buffer_bytes=1 << 20)
    assert 1e8 < bandwidth.read < 1e13
    assert 1e8 < bandwidth.copy < 1e13


def test_the_integer_peak_is_that_of_some_processor() -> None:
    peak = measure_integer_peak(1)
    assert peak is not None
    assert 1e8 < peak < 1e14


def test_there_is_no_peak_without_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    assert measure_integer_peak(1) is None
