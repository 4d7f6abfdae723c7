"""The official `openai` package when the server is busy or slow: retries, time limits, classes of errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import openai
import pytest

from serving import ServerProcess

KEY = "secret"
LONG = {"model": "model", "max_tokens": 3900, "extra_body": {"ignore_eos": True}}  # more than a minute
SHORT = {"model": "model", "max_tokens": 1, "prompt": "x"}


@pytest.fixture(scope="module")
def busy_server() -> Iterator[ServerProcess]:
    """One request runs, one waits, the third is refused; a long one lasts until its client leaves. Keys are checked."""
    options = ("--served-model-name", "model", "--max-batch", "1", "--max-queue", "1", "--api-key", KEY)
    with ServerProcess("scripted:step_us=20000", *options, "--log-level", "warning") as running:
        running.client.headers["authorization"] = f"Bearer {KEY}"
        yield running


def client_of(server: ServerProcess, **options: object) -> openai.AsyncOpenAI:
    """The official client; by default it retries nothing."""
    options = {"api_key": KEY, "max_retries": 0, "timeout": 60} | options
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", **options)


def num_refused(server: ServerProcess) -> float:
    """How often the server has answered with 429."""
    return sum(
        map(float, re.findall(r'http_requests_total{.*status="429".*} (\S+)', server.client.get("/metrics").text))
    )


@asynccontextmanager
async def full(server: ServerProcess) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Two long requests: one that runs, one that waits. What it gives ends them; they end anyway in the end."""
    tasks: list[asyncio.Task[object]] = []

    async def leave() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(server.wait_for, server.is_idle)

    async with client_of(server) as client:
        try:
            for gauge in ("cupola:num_requests_running", "cupola:num_requests_waiting"):
                tasks.append(asyncio.create_task(client.completions.create(prompt="x", **LONG)))
                await asyncio.to_thread(server.wait_for, lambda gauge=gauge: server.metric(gauge) == 1)
            yield leave
        finally:
            await leave()


async def test_a_full_queue_is_a_rate_limit_that_says_when_to_come_back(busy_server: ServerProcess) -> None:
    async with full(busy_server), client_of(busy_server) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.completions.create(**SHORT)
    assert caught.value.code == "queue_full"
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_the_client_comes_back_by_itself(busy_server: ServerProcess) -> None:
    refused = num_refused(busy_server)
    async with full(busy_server) as leave, client_of(busy_server, max_retries=9) as client:
        coming_back = asyncio.create_task(client.completions.create(**SHORT))
        await asyncio.to_thread(busy_server.wait_for, lambda: num_refused(busy_server) > refused)
        await leave()
        assert (await coming_back).usage.completion_tokens == 1


async def test_a_client_that_waits_no_longer_leaves_nothing_behind(busy_server: ServerProcess) -> None:
    async with client_of(busy_server, timeout=0.05) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.completions.create(prompt="x", **LONG)
    await asyncio.to_thread(busy_server.wait_for, busy_server.is_idle)


async def test_the_servers_own_time_limit_is_an_error_of_the_server(busy_server: ServerProcess) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await client_of(busy_server).completions.create(
            prompt="x", **LONG | {"extra_body": {"timeout": 0.05, "ignore_eos": True}}
        )
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")


async def test_a_wrong_key(busy_server: ServerProcess) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await client_of(busy_server, api_key="other").models.list()
    assert caught.value.code == "invalid_api_key"
