"""The server as a process: signals, its port, its end."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving import ServerProcess
from stand import COMPLETIONS

BODY = {"model": "scripted", "prompt": "x"}


class Reader(threading.Thread):
    """A client that reads one stream to its end; a bare one, so that all are there before the first is done."""

    def __init__(self, server: ServerProcess, max_tokens: int) -> None:
        super().__init__()
        self._address = server.url.removeprefix("http://")
        self._body = json.dumps(BODY | {"max_tokens": max_tokens, "stream": True})
        self.text = ""
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=100)
        connection.request("POST", COMPLETIONS, self._body, {"Content-Type": "application/json"})
        self.text = connection.getresponse().read().decode()
        connection.close()


def start_readers(server: ServerProcess, count: int, max_tokens: int) -> list[Reader]:
    readers = [Reader(server, max_tokens) for _ in range(count)]
    server.wait_for(lambda: server.metric("cupola:num_requests_running") == count)
    return readers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(number: signal.Signals) -> None:
    with ServerProcess("scripted:step_us=25000") as server:
        readers = start_readers(server, 8, 100)
        server.signal(number)
        server.wait_for(lambda: server.client.get("/ready").status_code == 503)
        refused = server.client.post(COMPLETIONS, json=BODY | {"max_tokens": 1})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        code, errors = server.end()
        for reader in readers:
            reader.join()
            assert len("".join(re.findall(r'"text":"(\w*)"', reader.text))) == 100
            assert reader.text.endswith("data: [DONE]\n\n")
        assert code == 0
        assert "Traceback" not in errors
        assert "ERROR" not in errors


def test_an_idle_server_does_not_wait_for_its_drains_limit() -> None:
    with ServerProcess("scripted", "--timeout-drain", "3600") as server:
        server.signal(signal.SIGTERM)
        assert server.end()[0] == 0


@pytest.mark.parametrize("how", ["second signal", "time limit"])
def test_a_drain_can_be_cut_short(how: str) -> None:
    options = ["--timeout-drain", "0.2" if how == "time limit" else "3600"]
    with ServerProcess("scripted:step_us=30000", *options) as server:
        readers = start_readers(server, 4, 4000)  # two minutes, if nobody cuts them short
        server.signal(signal.SIGTERM)
        if how == "second signal":
            server.wait_for(lambda: server.client.get("/ready").status_code == 503)
            server.signal(signal.SIGTERM)
        code, errors = server.end()
        for reader in readers:
            reader.join()
            assert '"code":"draining"' in reader.text
            assert reader.text.endswith("data: [DONE]\n\n")
        assert code == 0
        assert "Traceback" not in errors


def test_a_dead_engine_ends_the_process() -> None:
    with ServerProcess("scripted:fail_at_step=1,fail_steps=1000") as server:
        # It is given up after the third failure, and says so before it ends.
        statuses = [server.client.post(COMPLETIONS, json=BODY).status_code for _ in range(4)]
        assert statuses == [500] * 4
        assert server.client.get("/health").status_code == 503
        code, errors = server.end()
        assert code == 1
        assert "Traceback" not in errors


def serve(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cupola", "serve", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_port_in_use_is_told_before_any_model_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = serve("no-such-model", "--port", str(port))
    assert ended.returncode == 2
    assert f"Port {port} on 127.0.0.1 is in use" in ended.stderr
    assert "--port" in ended.stderr
    assert "no-such-model" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("scripted", "--host", "not.a.host.invalid"), "not.a.host.invalid"),
        (("scripted", "--kv-cache-memory", "lots"), "--kv-cache-memory"),
        (("scripted", "--port", "0", "--backend", "magic"), "magic"),
    ],
)
def test_wrong_options_are_told(options: tuple[str, ...], word: str) -> None:
    ended = serve(*options)
    assert ended.returncode == 2
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_options_reach_the_server() -> None:
    options = ("--served-model-name", "a", "--served-model-name", "b", "--max-context", "128", "--api-key", "secret")
    with ServerProcess("scripted", *options, "--kv-cache-memory", "64KiB", "--log-level", "error") as server:
        assert server.client.get("/v1/models").status_code == 401
        key = {"authorization": "Bearer secret"}
        models = server.client.get("/v1/models", headers=key).json()["data"]
        assert [model["id"] for model in models] == ["a", "b"]
        assert models[0]["max_model_len"] == 128
        assert 'cupola:kv_pages{model_name="a"} 512.0' in server.client.get("/metrics", headers=key).text
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


def test_a_body_that_is_too_large_is_answered_while_it_is_sent() -> None:
    with ServerProcess("scripted") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: 1000000000\r\n\r\n".encode() + b"x" * 1000)
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_malformed_requests_leave_no_trace_but_a_line() -> None:
    with ServerProcess("scripted") as server:
        host, port = server.url.removeprefix("http://").split(":")
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        for data in (
            b"GARBAGE\r\n\r\n",
            head + b"Content-Length: 50\r\n\r\n{",
            head + b"Transfer-Encoding: chunked\r\n\r\nzz",
        ):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(data)
        server.wait_for(lambda: 'status="499"' in server.client.get("/metrics").text)
        assert server.client.get("/ready").status_code == 200
        server.signal(signal.SIGTERM)
        code, errors = server.end()
        assert code == 0
        assert "Traceback" not in errors


@pytest.mark.model
def test_a_model_answers_to_its_alias_and_to_its_own_name() -> None:
    with ServerProcess("smollm2") as server:
        names = [model["id"] for model in server.client.get("/v1/models").json()["data"]]
        assert names == ["smollm2", "SmolLM2-135M-Instruct"]
        for name in names:
            body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
            assert server.client.post("/v1/chat/completions", json=body).status_code == 200


@pytest.mark.model
def test_a_folder_answers_to_its_models_name(compiled_smollm2: Path) -> None:
    with ServerProcess(str(compiled_smollm2)) as server:
        (model,) = server.client.get("/v1/models").json()["data"]
        assert model["id"] == "SmolLM2-135M-Instruct"


def test_serving_imports_no_compiler() -> None:
    program = (
        "import sys, cupola.server.app, cupola.server.process, cupola.engine.backends.compiled;"
        "print([name for name in sys.modules if name.split('.')[0] in ('tvm', 'torch', 'transformers')"
        " or name.startswith(('cupola.compiler', 'cupola.models', 'cupola.kernels', 'cupola.weights'))])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
