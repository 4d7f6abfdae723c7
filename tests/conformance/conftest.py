"""Two real servers for the official client: one on the scripted backend (fast), one on the default model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from serving import ServerProcess

collect_ignore = ["clients", "clients_openai2"]  # they run in environments of their own: `make conformance`


def start(model: str) -> ServerProcess:
    """A server whose model answers to the name `model` and to its alias `alias`."""
    names = ("--served-model-name", "model", "--served-model-name", "alias")
    return ServerProcess(model, *names, "--log-level", "warning")


@pytest.fixture(scope="session")
def scripted_server() -> Iterator[ServerProcess]:
    """The scripted backend, nearly as fast as it can be."""
    with start("scripted:token_us=50") as running:
        yield running


@pytest.fixture(scope="session")
def slow_scripted_server() -> Iterator[ServerProcess]:
    """The scripted backend, so slow that a long answer outlasts whatever a test does beside it."""
    with start("scripted:step_us=20000") as running:
        yield running


@pytest.fixture(scope="session")
def smollm2_server(compiled_smollm2: Path) -> Iterator[ServerProcess]:
    """The default model."""
    with start(str(compiled_smollm2)) as running:
        yield running


def servers(scripted: str) -> list[object]:
    """The fixtures of a scripted server and of the default model, as parameters of another fixture."""
    return [
        pytest.param(scripted, id="scripted"),
        pytest.param("smollm2_server", id="smollm2", marks=pytest.mark.model),
    ]


@pytest.fixture(scope="session", params=servers("scripted_server"))
def server(request: pytest.FixtureRequest) -> ServerProcess:
    """A running `cupola serve`; its model answers to the name `model` and to its alias `alias`."""
    running: ServerProcess = request.getfixturevalue(request.param)
    return running


@pytest.fixture(scope="session", params=servers("slow_scripted_server"))
def slow_server(request: pytest.FixtureRequest) -> ServerProcess:
    """As `server`, for what has to happen while a long answer is on its way."""
    running: ServerProcess = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


@pytest.fixture
def async_client(server: ServerProcess) -> openai.AsyncOpenAI:
    """The official client for asyncio."""
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)
