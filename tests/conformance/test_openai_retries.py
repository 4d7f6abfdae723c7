"""The official `openai` package when the server is busy or slow: retries, time limits, classes of errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

from serving import ServerProcess

KEY = "secret"
LONG = {"model": "model", "max_tokens": 1200, "extra_body": {"ignore_eos": True}}
SHORT = {"model": "model", "max_tokens": 1, "prompt": "x"}


@pytest.fixture(scope="module")
def busy_server() -> Iterator[ServerProcess]:
    """One request runs, one waits, the third is refused; a long one takes most of a second. Keys are checked."""
    options = ("--served-model-name", "model", "--max-batch", "1", "--max-queue", "1", "--api-key", KEY)
    with ServerProcess("scripted:step_us=500", *options, "--log-level", "warning") as running:
        running.client.headers["authorization"] = f"Bearer {KEY}"
        yield running


def client_of(server: ServerProcess, **options: object) -> openai.AsyncOpenAI:
    """The official client; by default it retries nothing."""
    options = {"api_key": KEY, "max_retries": 0, "timeout": 60} | options
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", **options)


async def fill(server: ServerProcess, client: openai.AsyncOpenAI) -> list[asyncio.Task[object]]:
    """Two long requests: one that runs, one that waits."""
    tasks = []
    for gauge in ("cupola:num_requests_running", "cupola:num_requests_waiting"):
        tasks.append(asyncio.create_task(client.completions.create(prompt="x", **LONG)))
        await asyncio.to_thread(server.wait_for, lambda gauge=gauge: server.metric(gauge) == 1)
    return tasks


async def test_a_full_queue_is_a_rate_limit_that_says_when_to_come_back(busy_server: ServerProcess) -> None:
    client = client_of(busy_server)
    tasks = await fill(busy_server, client)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.completions.create(**SHORT)
    assert caught.value.code == "queue_full"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    await asyncio.gather(*tasks)


async def test_the_client_comes_back_by_itself(busy_server: ServerProcess) -> None:
    tasks = await fill(busy_server, client_of(busy_server))
    before = busy_server.metric("cupola:generation_tokens_total")
    answer = await client_of(busy_server, max_retries=9).completions.create(**SHORT)
    assert answer.usage.completion_tokens == 1
    await asyncio.gather(*tasks)
    assert busy_server.metric("cupola:generation_tokens_total") > before


async def test_a_client_that_waits_no_longer_leaves_nothing_behind(busy_server: ServerProcess) -> None:
    with pytest.raises(openai.APITimeoutError):
        await client_of(busy_server, timeout=0.05).completions.create(prompt="x", **LONG)
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
