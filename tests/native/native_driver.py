"""Runs requests through a NativeEngine and gathers what came back: shared by the tests of this folder."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cupola.engine.native import NativeEngine
from cupola.engine.request import Delta, EngineStats, GenerateRequest, PositionLogprobs, SamplingParams

PATIENCE = 100.0  # seconds: far more than anything here takes, also on a slow machine


@dataclass
class Result:
    """Everything that one request got."""

    tokens: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    error: str | None = None
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    prompt_logprobs: list[PositionLogprobs] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        assert not self.reasons, f"a delta after the end: {delta}"
        self.tokens += delta.token_ids
        self.error = delta.error or self.error
        self.logprobs += delta.logprobs
        self.prompt_logprobs += delta.prompt_logprobs
        if delta.finish_reason:
            self.reasons.append(delta.finish_reason.value)


class Collector:
    """Reads an engine's output as it comes."""

    def __init__(self, engine: NativeEngine) -> None:
        self.engine = engine
        self.results: dict[int, Result] = {}
        self.order: list[int] = []  # of those that have ended

    def poll(self) -> None:
        """Take what is there."""
        for delta in self.engine.take():
            self.results.setdefault(delta.request_id, Result()).add(delta)
            if delta.finish_reason:
                self.order.append(delta.request_id)

    def until(self, done: Callable[[], bool]) -> None:
        """Take until `done`, waiting on the descriptor between."""
        deadline = time.monotonic() + PATIENCE
        self.poll()
        while not done():
            assert time.monotonic() < deadline, f"not done in {PATIENCE} s: {self.engine.stats()}"
            select.select([self.engine.event_fd], [], [], 0.01)
            self.poll()

    def until_ended(self, ids: Iterable[int]) -> dict[int, Result]:
        """Take until all of `ids` have ended."""
        wanted = list(ids)
        self.until(lambda: all(i in self.results and self.results[i].reasons for i in wanted))
        return self.results

    def until_stats(self, holds: Callable[[EngineStats], bool]) -> None:
        """Take until the engine's statistics satisfy a condition."""
        self.until(lambda: holds(self.engine.stats()))


def wait_until(holds: Callable[[], bool]) -> None:
    """Look again and again until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not so in {PATIENCE} s"
        time.sleep(0.001)


def greedy(
    request_id: int, prompt: Iterable[int], max_tokens: int, *, stop: tuple[int, ...] = (), priority: int = 0
) -> GenerateRequest:
    """A greedy request."""
    return GenerateRequest(
        id=request_id,
        token_ids=tuple(prompt),
        sampling=SamplingParams(temperature=0.0, seed=0, max_tokens=max_tokens),
        stop_token_ids=stop,
        priority=priority,
    )


def run(engine: NativeEngine, requests: list[GenerateRequest]) -> dict[int, Result]:
    """Add all requests at once and gather their results."""
    collector = Collector(engine)
    for request in requests:
        engine.add(request)
    return collector.until_ended(request.id for request in requests)
