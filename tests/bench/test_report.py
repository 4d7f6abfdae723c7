"""The JSON file and the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_target import FakeTarget
from rich.console import Console

from cupola.bench.interleave import Plan, measure
from cupola.bench.report import Report
from cupola.bench.workloads import WORKLOADS
from cupola.errors import StorageError


@pytest.fixture
async def report() -> Report:
    """Two targets, two rounds."""
    chosen = tuple(workload for workload in WORKLOADS if workload.group in ("decode", "prefill"))
    targets = (FakeTarget("mine", 0.002), FakeTarget("theirs", 0.004))
    return await measure(Plan(targets, chosen, 2, buffer_bytes=1 << 20, integer_peak=lambda _: 2e9), lambda _: None)


def test_the_file_holds_everything(report: Report, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    report.save(file)
    assert Report.model_validate_json(file.read_text()) == report
    content = json.loads(file.read_text())
    assert content["format_version"] == 2
    assert content["targets"] == ["mine", "theirs"]
    assert set(content["machine"]) == {"processor", "cores", "memory", "instructions", "system", "python"}
    decode = content["figures"][0]
    assert decode["workload"] == "decode, one stream"
    assert [len(values) for values in decode["values"]] == [2, 2]
    assert decode["spread"][0]["median"] == pytest.approx(500)
    assert decode["ratio"] == {key: pytest.approx(2) for key in ("median", "least", "greatest")}
    assert content["limits"]["read"]["median"] > 0
    assert content["limits"]["peak"]["median"] == 2e9
    assert decode["other_load"]["least"] >= 0
    assert len(content["figures"]) == 1 + 3 * 2


def test_a_file_that_cannot_be_written_is_a_sentence(report: Report, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written: Is a directory"):
        report.save(tmp_path)


def test_the_table_shows_names_medians_and_ratios(report: Report) -> None:
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(report.table())
    text = shown.get()
    for part in (
        "mine",
        "theirs",
        "decode, one stream",
        "500 (500-500)",
        "2.00 (2.00-2.00)",
        "GB/s read",
        "2.00 (2.00-2.00) GOP/s",
    ):
        assert part in text
