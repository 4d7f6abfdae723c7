"""Clients that go away: whatever their request was doing, all its pages are free again within a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
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
    """A server on which four requests run at once, so that others wait, and on which every step takes a while.

    A step cannot be interrupted, so the size of a step bounds the time in which a request ends.
    """
    model = "scripted:step_us=2000,token_us=200"
    if request.param == "smollm2":
        folder: Path = request.getfixturevalue("compiled_smollm2")
        model = str(folder)
    options = ("--served-model-name", "model", "--max-batch", "4", "--max-step-tokens", "128", "--log-level", "warning")
    with ServerProcess(model, *options) as running:
        yield running


async def leave(
    server: ServerProcess, bodies: list[dict[str, object]], when: Callable[[], bool], *, stream: bool
) -> None:
    """Sends the requests, and closes all connections at the moment when the condition holds."""

    async def read(client: httpx.AsyncClient, body: dict[str, object]) -> None:
        async with client.stream("POST", server.url + COMPLETIONS, json=body | {"stream": stream}) as response:
            assert response.status_code == 200
            async for _ in response.aiter_raw():
                pass

    async with httpx.AsyncClient(timeout=60) as client:
        readers = [asyncio.create_task(read(client, body)) for body in bodies]
        try:
            await asyncio.to_thread(server.wait_for, when)
            assert not any(reader.done() for reader in readers)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


@pytest.mark.parametrize("stream", [True, False])
async def test_in_the_middle_of_the_answer(small_server: ServerProcess, stream: bool) -> None:
    server = small_server
    before = server.metric("cupola:generation_tokens_total")
    aborted = server.metric("cupola:requests_aborted_total")
    bodies = [LONG | {"prompt": "A long story.", "n": 2}, LONG | {"prompt": ["One", "Two"]}]
    await leave(server, bodies, lambda: server.metric("cupola:generation_tokens_total") > before + 20, stream=stream)
    server.wait_for(server.is_idle, 1.0)
    assert server.metric("cupola:requests_aborted_total") == aborted + 4


@pytest.mark.parametrize("stream", [True, False])
async def test_in_prefill(small_server: ServerProcess, stream: bool) -> None:
    server = small_server
    generated = server.metric("cupola:generation_tokens_total")
    # Several chunks of prompt each; the connection closes as soon as the first pages are taken.
    bodies = [LONG | {"prompt": [40 + i] * 1900, "max_tokens": 8} for i in range(3)]
    await leave(
        server,
        bodies,
        lambda: server.metric("cupola:kv_pages_free") < server.metric("cupola:kv_pages"),
        stream=stream,
    )
    server.wait_for(server.is_idle, 1.0)
    assert server.metric("cupola:generation_tokens_total") < generated + 24, "they were not left in their prefill"


@pytest.mark.parametrize("stream", [True, False])
async def test_in_the_queue(small_server: ServerProcess, stream: bool) -> None:
    server = small_server
    aborted = server.metric("cupola:requests_aborted_total")
    bodies = [LONG | {"prompt": f"Story {number}"} for number in range(12)]
    await leave(server, bodies, lambda: server.metric("cupola:num_requests_waiting") == 8, stream=stream)
    server.wait_for(server.is_idle, 1.0)
    assert server.metric("cupola:requests_aborted_total") == aborted + 12


async def test_the_others_do_not_notice(small_server: ServerProcess) -> None:
    server = small_server
    body = {"model": "model", "prompt": "The sky is", "max_tokens": 60, "temperature": 0, "ignore_eos": True}
    alone = server.client.post(COMPLETIONS, json=body).json()["choices"][0]["text"]
    async with httpx.AsyncClient(timeout=60) as client:
        staying = asyncio.create_task(client.post(server.url + COMPLETIONS, json=body))
        bodies = [LONG | {"prompt": f"Story {number}"} for number in range(8)]
        await leave(server, bodies, lambda: server.metric("cupola:num_requests_running") == 4, stream=True)
        assert (await staying).json()["choices"][0]["text"] == alone
    server.wait_for(server.is_idle, 1.0)
