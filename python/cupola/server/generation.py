"""The choices of one request, running side by side in the engine. Knows deltas, no wire format.

A `Generation` is used in an `async with`: whatever ends the block (the last token, an error, a client that went
away) also ends every choice that still runs, and with it frees its pages.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.output import Completion, TextDelta
from cupola.engine.request import PLAIN, FinishReason, RequestOptions, SamplingParams
from cupola.engine.stream import Bell, TextStream
from cupola.errors import CupolaError, DeadlineError, EngineError, RequestError
from cupola.protocol.generation import Usage

WireFinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Job:
    """One choice: a prompt's token ids, and how to continue it. Jobs with the same `prompt_index` share a prompt."""

    prompt_index: int
    prompt: Sequence[int]
    sampling: SamplingParams
    options: RequestOptions = PLAIN


class Generation:
    """Runs jobs and counts their tokens.

    Args:
        engine: where they run.
        jobs: at least one.
        param_names: what the endpoint calls the engine's parameters, where that is different; for errors.
    """

    def __init__(self, engine: AsyncEngine, jobs: Sequence[Job], param_names: Mapping[str, str] | None = None) -> None:
        self._engine = engine
        self._jobs = tuple(jobs)
        self._param_names = param_names or {}
        self._streams: list[TextStream] = []
        self._bell = Bell()
        self._prompt_tokens: dict[int, int] = {}
        self._cached_tokens: dict[int, int] = {}
        self._completion_tokens = [0] * len(self._jobs)
        self.first_token: float | None = None  # time.perf_counter

    async def start(self) -> None:
        """Hands every job to the engine; what the engine refuses is raised here, before any answer begins."""
        try:
            grammars = [await self._engine.prepare(job.sampling) for job in self._jobs]
            for job, grammar in zip(self._jobs, grammars, strict=True):
                stream = self._engine.submit(job.prompt, job.sampling, job.options, grammar=grammar, bell=self._bell)
                self._streams.append(stream)
                self._prompt_tokens[job.prompt_index] = stream.prompt_tokens
        except RequestError as error:
            error.param = self._param_names.get(error.param or "", error.param)
            await self.aclose()
            raise
        except CupolaError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Ends what still runs, and frees its pages; safe to call at any time, and twice."""
        for stream in self._streams:
            await stream.aclose()

    async def __aenter__(self) -> Generation:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    @property
    def jobs(self) -> Sequence[Job]:
        """What runs: one for each choice, in their order."""
        return self._jobs

    @property
    def usage(self) -> Usage:
        """Tokens so far; each prompt counts once, however many choices continue it.

        Where they do, it was cached as far as the choice found it that found least: the others may share its pages.
        """
        prompt, cached = sum(self._prompt_tokens.values()), sum(self._cached_tokens.values())
        return Usage.of(prompt, sum(self._completion_tokens), cached)

    async def deltas(self) -> AsyncGenerator[tuple[int, TextDelta], None]:
        """(index of the choice, what is new about it), in the order in which the engine produces them."""
        running = dict(enumerate(self._streams))
        while running:
            await self._bell.wait()
            for index, stream in tuple(running.items()):
                delta = stream.poll()
                if delta is None:
                    continue
                self._count(index, delta)
                if delta.finish_reason is not None:
                    del running[index]
                yield index, delta

    async def answers(self) -> list[Completion]:
        """Waits for every choice to end."""
        parts: list[list[TextDelta]] = [[] for _ in self._jobs]
        async with contextlib.aclosing(self.deltas()) as deltas:
            async for index, delta in deltas:
                parts[index].append(delta)
        return [Completion.of(part) for part in parts]

    def _count(self, index: int, delta: TextDelta) -> None:
        if self.first_token is None and (delta.token_ids or delta.finish_reason is not None):
            self.first_token = time.perf_counter()
        self._completion_tokens[index] += len(delta.token_ids)
        if delta.usage is not None:
            # The engine's own count is the last word: it includes a stop token, which no delta shows.
            self._completion_tokens[index] = delta.usage.completion_tokens
            prompt, cached = self._jobs[index].prompt_index, delta.usage.cached_tokens
            self._cached_tokens[prompt] = min(cached, self._cached_tokens.get(prompt, cached))


def wire_reason(reason: FinishReason) -> WireFinishReason:
    """The API's word for it.

    Raises:
        DeadlineError: its time was over.
        EngineError: the request was ended from inside; that is no success, and never told as one.
    """
    if reason is FinishReason.STOP:
        return "stop"
    if reason is FinishReason.LENGTH:
        return "length"
    if reason is FinishReason.DEADLINE:
        raise DeadlineError("The request was not done within its `timeout`.")
    raise EngineError("The engine ended the request before it was complete.")
