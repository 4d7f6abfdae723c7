"""`cupola doctor`: what it finds, what it advises, how it ends."""

from __future__ import annotations

import errno
import http.server
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import cupola

from cupola import processor
from cupola.cli import checks
from cupola.cli.checks import Finding
from cupola.engine import native_library
from cupola.errors import EngineError

V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe"


def test_all_is_well_here(tmp_path: Path) -> None:
    outcome = cupola("doctor", "--offline", "--json", env={"CUPOLA_HOME": str(tmp_path / "home")})
    findings = {finding["name"]: finding for finding in json.loads(outcome.out)}
    assert outcome.code == 0, findings
    assert list(findings) == [
        "versions",
        "engine",
        "processor",
        "cores",
        "memory",
        "GPUs",
        "webgpu",
        "opencl",
        "C++ compiler",
        "cache",
        "port 8000",
    ]
    assert findings["versions"]["state"] == findings["engine"]["state"] == findings["cache"]["state"] == "ok"
    assert all(finding["hint"] for finding in findings.values() if finding["state"] != "ok")


def test_a_failure_ends_with_1_and_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = cupola("doctor", "--offline", env={"CUPOLA_HOME": str(tmp_path / "file" / "home")})
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    (failed,) = (i for i, line in enumerate(lines) if line.startswith("  fail  cache"))
    assert "hint: set CUPOLA_HOME to a folder that can be written" in lines[failed + 1]


def test_a_folder_that_cannot_be_written_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setenv("CUPOLA_HOME", str(tmp_path))
    monkeypatch.setattr(checks.tempfile, "TemporaryFile", refuse)
    finding = checks.cache()
    assert (finding.state, "Permission denied" in finding.text) == ("fail", True)


def test_the_cache_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tmp_path / "compiled" / "one"
    model.mkdir(parents=True)
    (model / "model.json").write_bytes(b"x" * (1 << 20))
    (model / "weights").write_bytes(b"x" * (20 << 20))
    (model / "link").symlink_to(model / "weights")
    monkeypatch.setenv("CUPOLA_HOME", str(tmp_path))
    assert f"{tmp_path}: 1 compiled models, 0.02 GiB" in checks.cache().text


def test_another_version_of_tvm_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = checks.version
    monkeypatch.setattr(checks, "version", lambda name: "0.1" if name == "apache-tvm" else real(name))
    finding = checks.versions()
    assert (finding.state, "apache-tvm 0.1," in finding.text) == ("fail", True)


def test_an_engine_that_cannot_be_loaded_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise EngineError("libtvm_runtime.so was not found", hint="install the package apache-tvm")

    monkeypatch.setattr(native_library, "load_tvm_runtime", fail)
    finding = checks.native_library()
    assert finding == Finding(
        "engine", "fail", "cannot be loaded: libtvm_runtime.so was not found", "install the package apache-tvm"
    )


@pytest.mark.parametrize(
    ("flags", "state", "said"),
    [
        (f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni", "ok", "auto: x86-64-v4, avx512"),
        (V3, "ok", "auto: x86-64-v3, avx2"),
        ("sse2", "note", "no vector features known; auto: generic, plain"),
    ],
)
def test_the_processor_and_what_is_made_of_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, state: str, said: str
) -> None:
    monkeypatch.setattr(processor, "flags", lambda: frozenset(flags.split()))
    monkeypatch.setattr(processor, "machine", lambda: "x86_64")
    finding = checks.cpu()
    assert (finding.state, said in finding.text) == (state, True), finding


def test_a_containers_bounds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/fs/cgroup/cpu.max": "50000 100000", "/sys/fs/cgroup/memory.max": str(checks.GIB)}
    monkeypatch.setattr(checks, "_read", lambda path: files[path])
    monkeypatch.setattr(checks.os, "sched_getaffinity", lambda _: {0, 1})
    assert checks.cores().hint == "start with --num-threads 1"
    assert "0.5 by the container's quota" in checks.cores().text
    assert "may use 1.0 GiB" in checks.memory().hint


def test_without_a_compiler_it_says_what_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert checks.compiler().state == "note"


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        finding = checks.port("127.0.0.1", number)
    assert (finding.state, f"--port {number + 1}" in finding.hint) == ("note", True)
    assert checks.port("127.0.0.1", number).state == "ok"


class Refusing(http.server.BaseHTTPRequestHandler):
    """A hub that is there, but has nothing for us."""

    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_hub(monkeypatch: pytest.MonkeyPatch, hub: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub)
    assert checks.hub() == Finding("hub", "ok", f"{hub} can be reached")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert (checks.hub().state, "HF_ENDPOINT" in checks.hub().hint) == ("note", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "because HF_HUB_OFFLINE is set" in checks.hub().text
