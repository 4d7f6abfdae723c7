"""Clients that go away: whatever their request was doing, it ends there and then, and all its pages are free again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from serving import ServerProcess

COMPLETIONS = "/v1/completions"
LONG = {"model": "model", "max_tokens": 1500, "ignore_eos": True}


@pytest.fixture(
    scope="module",
    params=[pytest.param("scripted", id="scripted"), pytest.param("smollm2", id="smollm2", marks=pytest.mark.model)],
)
def small_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server on which four requests run at once, so that others wait.

    Every step takes a while, so that no request is over before its client has left, however slow the client is.
    """
    model = "scripted:step_us=20000,token_us=2000"
    if request.param == "smollm2":
        folder: Path = request.getfixturevalue("compiled_smollm2")
        model = str(folder)
    options = ("--served-model-name", "model", "--max-batch", "4", "--max-step-tokens", "128")
    with ServerProcess(model, *options, "--log-level", "warning") as running:
        yield running


@dataclass(frozen=True)
class Tokens:
    """How many tokens a server has generated, and how many requests ended early."""

    generated: float
    aborted: float

    @classmethod
    def of(cls, server: ServerProcess) -> Tokens:
        return cls(server.metric("cupola:generation_tokens_total"), server.metric("cupola:requests_aborted_total"))


async def leave(
    server: ServerProcess, bodies: list[dict[str, object]], when: Callable[[], bool], *, stream: bool
) -> None:
    """Sends the requests, and closes all connections at the moment when the condition holds."""

    async def read(client: httpx.AsyncClient, body: dict[str, object]) -> None:
        async with client.stream("POST", server.url + COMPLETIONS, json=body | {"stream": stream}) as response:
            assert response.status_code == 200
            async for _ in response.aiter_raw():
                pass

    async with httpx.AsyncClient(timeout=100) as client:
        readers = [asyncio.create_task(read(client, body)) for body in bodies]
        try:
            await asyncio.to_thread(server.wait_for, when)
            assert not any(reader.done() for reader in readers)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


def assert_ended(server: ServerProcess, before: Tokens, requests: int) -> None:
    """All requests were aborted, long before their ends, and nothing of them is left.

    Counted in tokens: how fast a machine computes them, or notices that a client has left, is its own affair.
    """
    server.wait_for(server.is_idle)
    after = Tokens.of(server)
    assert after.aborted == before.aborted + requests
    assert after.generated - before.generated < requests * LONG["max_tokens"] / 2


@pytest.mark.parametrize("stream", [True, False])
async def test_in_the_middle_of_the_answer(small_server: ServerProcess, stream: bool) -> None:
    server = small_server
    before = Tokens.of(server)
    bodies = [LONG | {"prompt": "A long story.", "n": 2}, LONG | {"prompt": ["One", "Two"]}]
    await leave(server, bodies, lambda: Tokens.of(server).generated > before.generated + 20, stream=stream)
    assert_ended(server, before, 4)


@pytest.mark.parametrize("stream", [True, False])
async def test_in_prefill(small_server: ServerProcess, stream: bool) -> None:
    server = small_server
    before = Tokens.of(server)
    # Several chunks of prompt each; the connection closes as soon as the first pages are taken.
    bodies = [LONG | {"prompt": [40 + i] * 1900, "max_tokens": 8} for i in range(3)]
    await leave(
        server,
        bodies,
        lambda: server.metric("cupola:kv_pages_free") < server.metric("cupola:kv_pages"),
        stream=stream,
    )
    assert_ended(server, before, 3)
    assert Tokens.of(server).generated < before.generated + 24, "they were not left in their prefill"


@pytest.mark.parametrize("stream", [True, False])
async def test_in_the_queue(small_server: ServerProcess, stream: bool) -> None:
    server = small_server
    before = Tokens.of(server)
    bodies = [LONG | {"prompt": f"Story {number}"} for number in range(12)]
    await leave(server, bodies, lambda: server.metric("cupola:num_requests_waiting") == 8, stream=stream)
    assert_ended(server, before, 12)


async def test_the_others_do_not_notice(small_server: ServerProcess) -> None:
    server = small_server
    body = {"model": "model", "prompt": "The sky is", "max_tokens": 60, "temperature": 0, "ignore_eos": True}
    alone = server.client.post(COMPLETIONS, json=body).json()["choices"][0]["text"]
    before = Tokens.of(server)
    async with httpx.AsyncClient(timeout=100) as client:
        staying = asyncio.create_task(client.post(server.url + COMPLETIONS, json=body))
        bodies = [LONG | {"prompt": f"Story {number}"} for number in range(8)]
        await leave(server, bodies, lambda: server.metric("cupola:num_requests_running") == 4, stream=True)
        assert (await staying).json()["choices"][0]["text"] == alone
    assert_ended(server, before, 8)
