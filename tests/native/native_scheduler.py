"""The C++ scheduler without a thread or a model, as `cupola.testing.*` offers it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import tvm_ffi

from cupola.engine.native import native

STOP, LENGTH, ABORT, ERROR = 1, 2, 3, 4


@dataclass(frozen=True)
class Planned:
    """One sequence of a planned step."""

    id: int
    rows: int
    samples: bool


@dataclass(frozen=True)
class StepReport:
    """One step: the plan, and what booking it did."""

    planned: list[Planned]
    running: list[int]  # in rank order, while the plan stood
    preemptions: int
    budget_left: int
    head_fits: bool
    num_waiting: int
    tokens: list[int]  # ids that got a token
    ended: list[tuple[int, int]]  # (id, reason)


class SchedulerDouble:
    """Drives one scheduler; every call checks its integrity in C++."""

    def __init__(
        self, num_pages: int, page_size: int, max_batch: int, max_step_tokens: int, max_context: int = 1 << 20
    ) -> None:
        self._handle = native("testing.scheduler")(num_pages, page_size, max_batch, max_step_tokens, max_context)

    @property
    def free_pages(self) -> int:
        return int(native("testing.free_pages")(self._handle))

    def add(self, request_id: int, prompt: int, max_tokens: int, priority: int = 0) -> bool:
        """False if the request can never fit."""
        return bool(native("testing.add")(self._handle, request_id, prompt, max_tokens, priority))

    def abort(self, request_id: int) -> list[tuple[int, int]]:
        """What ended: nothing or the request."""
        return _pairs(native("testing.abort")(self._handle, request_id))

    def step(self, stopping: Iterable[int] = (), *, fails: bool = False) -> StepReport:
        """Schedule and book one step; `stopping` sample a stop id."""
        raw = native("testing.step")(self._handle, tvm_ffi.Shape(tuple(stopping)), fails)
        planned, facts = list(raw["planned"]), list(raw["facts"])
        return StepReport(
            planned=[Planned(*planned[i : i + 2], bool(planned[i + 2])) for i in range(0, len(planned), 3)],
            running=list(raw["running"]),
            preemptions=facts[0],
            budget_left=facts[1],
            head_fits=bool(facts[2]),
            num_waiting=facts[3],
            tokens=list(raw["tokens"]),
            ended=_pairs(raw["ended"]),
        )


def _pairs(flat: Iterable[int]) -> list[tuple[int, int]]:
    values = list(flat)
    return list(zip(values[::2], values[1::2], strict=True))
