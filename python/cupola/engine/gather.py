"""Many requests at once, no more than the engine keeps busy with.

A thousand coroutines that wait cost less than a thousand requests in the engine's queue, which others share.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from cupola.engine.output import Completion
from cupola.engine.request import RequestOptions, SamplingParams
from cupola.errors import OverloadedError

if TYPE_CHECKING:
    from cupola.engine.async_engine import AsyncEngine, Prompt

Job = TypeVar("Job")
Result = TypeVar("Result")

_RETRY_SECONDS = 0.1

# Results that may wait for an earlier one.
_MAX_HELD = 1024


async def complete_all(
    engine: AsyncEngine, jobs: Sequence[tuple[Prompt, SamplingParams | None]], options: RequestOptions
) -> list[Completion]:
    """The completions of all jobs, in their order. The first failure ends all of them and is raised."""

    async def complete(job: tuple[Prompt, SamplingParams | None]) -> Completion:
        return await engine.complete(*job, options)

    return [completion async for completion in in_order(engine, jobs, complete)]


async def in_order(
    engine: AsyncEngine, jobs: Iterable[Job], work: Callable[[Job], Awaitable[Result]]
) -> AsyncGenerator[Result, None]:
    """The results of `work` on each job, in the order of the jobs, which are taken one by one as there is room.

    Twice as many jobs as the engine runs at once are under way, so that it never waits for the next one. A job that
    the engine refuses because others fill its queue is tried again until there is room. The first failure ends all
    jobs and is raised.
    """
    ordered: deque[asyncio.Task[Result]] = deque()
    running: set[asyncio.Task[Result]] = set()
    remaining = iter(jobs)
    width = 2 * engine.config.max_batch
    try:
        while True:
            while len(running) < width and len(ordered) < width + _MAX_HELD:
                job = next(remaining, None)
                if job is None:
                    break
                task = asyncio.ensure_future(_patiently(engine, work, job))
                running.add(task)
                ordered.append(task)
            if not ordered:
                return
            if ordered[0].done():
                yield ordered.popleft().result()
                continue
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises the failure of a job whose turn has not come
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _patiently(engine: AsyncEngine, work: Callable[[Job], Awaitable[Result]], job: Job) -> Result:
    while True:
        try:
            return await work(job)
        except OverloadedError:
            # An engine that is empty will not have more room later.
            if engine.draining or engine.active == 0:
                raise
            await asyncio.sleep(_RETRY_SECONDS)
