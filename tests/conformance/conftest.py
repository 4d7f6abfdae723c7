"""Two real servers for the official client: one on the scripted backend (fast), one on the default model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from serving import ServerProcess

collect_ignore = ["clients", "clients_openai2"]  # they run in environments of their own: `make conformance`


@pytest.fixture(
    scope="session",
    params=[pytest.param("scripted", id="scripted"), pytest.param("smollm2", id="smollm2", marks=pytest.mark.model)],
)
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A running `cupola serve`; its model answers to the name `model` and to its alias `alias`."""
    model = "scripted:token_us=50"
    if request.param == "smollm2":
        folder: Path = request.getfixturevalue("compiled_smollm2")
        model = str(folder)
    names = ("--served-model-name", "model", "--served-model-name", "alias")
    with ServerProcess(model, *names, "--log-level", "warning") as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


@pytest.fixture
def async_client(server: ServerProcess) -> openai.AsyncOpenAI:
    """The official client for asyncio."""
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)
