"""`cupola bench` from the outside, on the scripted model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from command import CUPOLA, cupola

from serving import ServerProcess


def test_in_process(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    outcome = cupola("bench", "scripted:step_us=100", "--rounds", "1", "--only", "decode", "--json", str(file))
    assert outcome.code == 0, outcome.err
    assert "decode, one stream" in outcome.out
    assert "scripted in process" in outcome.out
    (figure,) = json.loads(file.read_text())["figures"]
    assert 0 < figure["spread"][0]["median"] < 10_000


def test_a_server_against_one_that_it_starts(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = f"{sys.executable} -m cupola serve scripted:step_us=10000 --port {{port}}"
    with ServerProcess("scripted:step_us=200") as server:
        outcome = cupola(
            *("bench", "--url", server.url, "--pid", str(server.process.pid), "--vs-spawn", command),
            *("--rounds", "1", "--only", "decode", "--only", "memory", "--json", str(file)),
        )
    assert outcome.code == 0, outcome.err
    report = json.loads(file.read_text())
    assert len(report["targets"]) == 2
    assert [figure["workload"] for figure in report["figures"]] == ["decode, one stream", "memory"]
    assert report["figures"][0]["ratio"]["median"] > 1


def test_sigterm_leaves_no_server_behind() -> None:
    command = f"{sys.executable} -m cupola serve scripted:step_us=20000 --port {{port}}"
    bench = subprocess.Popen([*CUPOLA, "bench", "--spawn", command, "--only", "decode"], stderr=subprocess.PIPE)
    process = psutil.Process(bench.pid)
    while not (children := process.children()):
        assert bench.poll() is None
    bench.terminate()
    assert bench.wait() == 128 + signal.SIGTERM
    assert bench.stderr is not None
    assert b"Traceback" not in bench.stderr.read()
    assert not psutil.wait_procs(children, timeout=100)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--url", "nowhere"), 2, "`nowhere` is not the URL of a server"),
        (("--url", "http://127.0.0.1:1"), 1, "http://127.0.0.1:1 cannot be reached"),
        (("--url", "http://a", "--spawn", "b {port}"), 2, "not by both"),
        (("--spawn", "cupola serve"), 2, "where the port goes"),
        (("scripted", "--only", "fly"), 2, "There is no workload `fly`"),
        (("scripted", "--only", "start"), 2, "Nothing of start can be measured here"),
        (("scripted", "--rounds", "0"), 2, "--rounds"),
    ],
)
def test_errors_are_sentences(arguments: tuple[str, ...], code: int, says: str) -> None:
    outcome = cupola("bench", *arguments)
    assert outcome.code == code
    assert says in outcome.err
    assert "Traceback" not in outcome.err
