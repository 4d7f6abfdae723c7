"""Many requests at once, no more than the engine keeps busy with.

A thousand coroutines that wait cost less than a thousand requests in the engine's queue, which others share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from cupola.engine.async_engine import AsyncEngine, Prompt
from cupola.engine.output import Completion
from cupola.engine.request import SamplingParams
from cupola.errors import OverloadedError

Job = TypeVar("Job")
Result = TypeVar("Result")

_MAX_RETRY_SECONDS = 1.0


async def complete_all(engine: AsyncEngine, jobs: Sequence[tuple[Prompt, SamplingParams | None]]) -> list[Completion]:
    """The completions of all jobs, in their order. The first failure ends all of them and is raised."""

    async def complete(job: tuple[Prompt, SamplingParams | None]) -> Completion:
        return await engine.complete(*job)

    return [completion async for completion in in_order(engine, jobs, complete)]


async def in_order(
    engine: AsyncEngine, jobs: Iterable[Job], work: Callable[[Job], Awaitable[Result]]
) -> AsyncIterator[Result]:
    """The results of `work` on each job, in the order of the jobs, which are taken one by one as there is room.

    Twice as many jobs as the engine runs at once are under way, so that it never waits for the next one. A job that
    the engine refuses because others filled its queue is tried again until there is room.
    """
    tasks: list[asyncio.Task[Result]] = []
    remaining = iter(jobs)
    width = 2 * engine.config.max_batch
    try:
        while True:
            while len(tasks) < width and (job := next(remaining, None)) is not None:
                tasks.append(asyncio.create_task(_patiently(engine, work, job)))
            if not tasks:
                return
            yield await tasks.pop(0)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _patiently(engine: AsyncEngine, work: Callable[[Job], Awaitable[Result]], job: Job) -> Result:
    while True:
        try:
            return await work(job)
        except OverloadedError as error:
            if engine.draining:
                raise
            await asyncio.sleep(min(error.retry_after, _MAX_RETRY_SECONDS))
