"""`cupola serve` with several models, and what its first screen says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from cupola.errors import UsageError
from cupola.server.opening import ModelSource, model_sources
from serving import ServerProcess
from stand import COMPLETIONS

A, B = "scripted:first_id=97,num_ids=1", "scripted:first_id=98,num_ids=1"


def ask(server: ServerProcess, name: str) -> str:
    body = {"model": name, "prompt": "x", "max_tokens": 3, "ignore_eos": True}
    return str(server.client.post(COMPLETIONS, json=body).json()["choices"][0]["text"])


def test_two_models_of_one_server_come_and_go() -> None:
    with ServerProcess(f"one={A}", f"team/two={B}", "--lazy", "--idle-unload", "0.2") as server:

        def states() -> dict[str, str]:
            return {card["id"]: card["state"] for card in server.client.get("/v1/models").json()["data"]}

        assert states() == {"one": "unloaded", "team/two": "unloaded"}
        for _ in range(2):
            assert [ask(server, name) for name in ("one", "team/two")] == ["aaa", "bbb"]
            server.wait_for(lambda: set(states().values()) == {"unloaded"})
            assert server.client.get("/ready").status_code == 200
        assert server.metric("cupola:generation_tokens_total") == 12
        server.signal(signal.SIGTERM)
        code, errors = server.end()
        assert code == 0
        assert "Traceback" not in errors
        assert errors.count("it is unloaded") == 4


def test_one_server_has_models_of_both_kinds() -> None:
    with ServerProcess("scripted", "scripted-encoder", "--max-context", "256", "--idle-unload", "0.3") as server:

        def embed(name: str) -> httpx.Response:
            return server.client.post("/v1/embeddings", json={"model": name, "input": ["one", "two"]})

        for _ in range(2):
            assert len(embed("scripted-encoder").json()["data"]) == 2
            assert len(ask(server, "scripted")) == 3
            server.wait_for(lambda: server.metric("cupola:model_loaded") == 0)
        for answer in (
            embed("scripted"),
            server.client.post(COMPLETIONS, json={"model": "scripted-encoder", "prompt": "x"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_model")
        counted = re.findall(r"prompt_tokens_total\{model_name=\"scripted-encoder\"\} (\S+)", metrics_of(server))
        assert float(counted[0]) >= 12, "the encoder's counters go on, too"


def metrics_of(server: ServerProcess) -> str:
    return server.client.get("/metrics").text


def test_a_server_ends_while_a_model_is_being_compiled(tmp_path: Path) -> None:
    endless = tmp_path / "model.gguf"
    os.mkfifo(endless)  # whoever reads it waits for ever
    with ServerProcess(f"slow={endless}", "--lazy") as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.client.post, COMPLETIONS, json={"model": "slow", "prompt": "x"})
        process = psutil.Process(server.process.pid)
        server.wait_for(lambda: len(process.children()) == 1)
        (compiler,) = process.children()
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        server.signal(signal.SIGINT)
        assert (waiting.result().status_code, waiting.result().json()["error"]["code"]) == (503, "draining")
        code, errors = server.end()
        assert (code, compiler.is_running()) == (0, False)
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("text", "model", "names"),
    [
        ("smollm2", "smollm2", ()),
        ("chat=smollm2", "smollm2", ("chat",)),
        ("org/name=pypi:package", "pypi:package", ("org/name",)),
        ("scripted:step_us=3", "scripted:step_us=3", ()),
        ("a=scripted:step_us=3", "scripted:step_us=3", ("a",)),
        ("a=./b=c", "./b=c", ("a",)),
    ],
)
def test_a_model_may_be_given_a_name(text: str, model: str, names: tuple[str, ...]) -> None:
    assert ModelSource.parse(text) == ModelSource(model, names)


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    source = ModelSource.parse("a=b")
    assert source == ModelSource("a=b")
    assert source.early_names() == ("a=b",)


def test_one_name_cannot_be_for_several() -> None:
    with pytest.raises(UsageError, match="--served-model-name"):
        model_sources(["scripted", "b=scripted"], ["x"])
    assert model_sources(["a=scripted"], ["x"]) == (ModelSource("scripted", ("a", "x")),)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a=no-such-model", "a=no-such-model"), "Two models have the name `a`"),
        (("no-such-model", "--api-key-file", "no-such-file"), "no-such-file"),
    ],
)
def test_what_cannot_be_is_told_before_any_model_is_opened(words: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "cupola", "serve", *words, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_screen() -> None:
    command = [sys.executable, "-m", "cupola", "serve", f"one={A}", "--port", "0", "--kv-cache-memory", "8KiB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(9)]
        process.terminate()
    ready, _, head, row, *urls = lines
    assert re.fullmatch(r"Cupola \S+ ready in \d+\.\d s\n", ready)
    assert head.split("  ")[1] == "model"
    for word in ("one", "generate", "f32", "4096", "512 x 16 = 8192 tokens", "64", "scripted backend"):
        assert word in row
    for name, path in {"chat page": "/", "API base": "/v1", "health": "/health"}.items():
        assert re.search(rf"^  {name} +http://127\.0\.0\.1:\d+{path}$", "".join(urls), re.MULTILINE)
