"""Many jobs in order: bounded, patient with a full queue, and all ended by the first failure."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from scripted_engine import all_pages_back

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.gather import in_order
from cupola.engine.options import EngineOptions
from cupola.engine.request import SamplingParams
from cupola.errors import OverloadedError


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    async with AsyncEngine("scripted:step_us=1000", config=EngineOptions(max_batch=4, max_queue=4)) as engine:
        yield engine


async def test_results_come_in_order_and_a_slow_first_job_holds_up_nobody(engine: AsyncEngine) -> None:
    others_done = asyncio.Event()
    finished: list[int] = []

    async def work(job: int) -> int:
        if job == 0:
            await others_done.wait()
        finished.append(job)
        if len(finished) == 99:
            others_done.set()
        return job

    assert [result async for result in in_order(engine, range(100), work)] == list(range(100))
    assert finished[-1] == 0


async def test_jobs_are_taken_as_there_is_room(engine: AsyncEngine) -> None:
    running = most = 0

    async def work(job: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return job

    endless = in_order(engine, itertools.count(), work)
    assert [await anext(endless) for _ in range(50)] == list(range(50))
    await endless.aclose()
    assert most == 8  # twice what the engine runs at once


async def test_the_first_failure_ends_the_others(engine: AsyncEngine) -> None:
    cancelled: list[int] = []

    async def work(job: int) -> int:
        if job == 3:
            raise ValueError("job 3")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(job)
            raise
        return job

    with pytest.raises(ValueError, match="job 3"):
        _ = [result async for result in in_order(engine, range(100), work)]
    assert sorted(cancelled) == [0, 1, 2, 4, 5, 6, 7]


async def test_a_full_queue_is_waited_for(engine: AsyncEngine) -> None:
    strangers = [engine.submit("other", SamplingParams(max_tokens=20)) for _ in range(4)]

    async def work(job: int) -> int:
        return (await engine.complete(f"{job}", SamplingParams(max_tokens=4))).usage.completion_tokens

    assert [result async for result in in_order(engine, range(10), work)] == [4] * 10
    for stream in strangers:
        assert (await stream.completion()).usage.completion_tokens == 20


async def test_what_an_empty_engine_refuses_is_refused(engine: AsyncEngine) -> None:
    async def work(_job: int) -> int:
        raise OverloadedError("more than the queue ever holds")

    with pytest.raises(OverloadedError):
        _ = [result async for result in in_order(engine, [1], work)]
    await all_pages_back(engine)
