"""Servers that the benchmark starts: ready, frozen, measured, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from cupola.bench.client import Client
from cupola.bench.server_target import ServerTarget, first_answer
from cupola.bench.spawned import SpawnedServer, resident_bytes
from cupola.errors import EngineError, UsageError
from stand import until

SCRIPTED = f"{sys.executable} -m cupola serve scripted --port {{port}}"


def quoted(code: str) -> str:
    return f"{sys.executable} -c '{code}' {{port}}"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("cupola serve", "does not say where the port goes"),
        ("cupola 'serve --port {port}", "cannot be read"),
        ("/no/such/program {port}", "cannot be started: No such file"),
        ("", "does not say where"),
    ],
)
def test_a_wrong_command_is_a_sentence(command: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        SpawnedServer(command)


async def test_a_server_that_ends_says_why() -> None:
    with (
        SpawnedServer(quoted('import sys; sys.exit("no model here")')) as server,
        pytest.raises(EngineError, match="ended with exit code 1, saying: no model here"),
    ):
        await first_answer(server, Client(server.url), "hello")


async def test_it_is_started_frozen_thawed_measured_and_ended() -> None:
    with SpawnedServer(SCRIPTED) as server:
        client = Client(server.url)
        sample = await first_answer(server, client, "hello")
        assert sample.completion_tokens == 1
        process = psutil.Process(server.pid)
        target = ServerTarget("scripted", client, server=server)
        target.suspend()
        await until(lambda: process.status() == psutil.STATUS_STOPPED)
        start = await target.measure_start("hello")  # another process: this one stays frozen
        assert process.status() == psutil.STATUS_STOPPED
        assert start.seconds > 0
        assert start.resident_bytes > 10e6
        target.resume()
        assert (await target.generate("hello", 3)).completion_tokens == 3
        assert resident_bytes(server.pid) > 10e6
        target.suspend()
    assert not process.is_running()
    with pytest.raises(EngineError, match="no process"):
        resident_bytes(server.pid)


async def test_a_death_in_a_round_is_told_by_the_process() -> None:
    with SpawnedServer(SCRIPTED) as server:
        client = Client(server.url)
        await first_answer(server, client, "hello")
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 (it was killed)
        with pytest.raises(EngineError, match="ended with exit code -9"):
            await ServerTarget("scripted", client, server=server).generate("hello", 1)


async def test_a_server_of_others_is_neither_frozen_nor_started() -> None:
    target = ServerTarget("theirs", Client("http://127.0.0.1:1", "m"), pid=os.getpid())
    target.suspend()  # this very process would stand still
    assert not target.can_start
    with pytest.raises(UsageError, match="its command is not known"):
        await target.measure_start("hello")


def test_children_are_ended_too() -> None:
    sleep = "import time; time.sleep(60)"
    code = f'import subprocess, sys; subprocess.run([sys.executable, "-c", "{sleep}"])'
    with SpawnedServer(quoted(code)) as server:
        parent = psutil.Process(server.pid)
        wait_until(parent.children)
        child = parent.children()[0]
        wait_until(lambda: resident_bytes(server.pid) > parent.memory_info().rss)  # once it is more than begun
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_that_ends_meanwhile_has_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def children(_process: psutil.Process, **_options: object) -> list[psutil.Process]:
        with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as ended:
            return [psutil.Process(ended.pid)]

    monkeypatch.setattr(psutil.Process, "children", children)
    assert resident_bytes(os.getpid()) > 1e6


def wait_until(holds: Callable[[], object]) -> None:
    """Look again and again; the time limit is the test's own."""
    while not holds():
        time.sleep(0.01)
