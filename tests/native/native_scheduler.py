"""The C++ scheduler without a thread or a model, as `cupola.testing.*` offers it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tvm_ffi

from cupola.engine.native import native

STOP, LENGTH, ABORT, ERROR, DEADLINE, REFUSED = 1, 2, 3, 4, 5, 6
PREDICTED, CONSERVATIVE, OPTIMISTIC = 0, 1, 2  # what is expected of those that run


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
    copies: list[tuple[int, int]]  # (page, page) copied before the forward
    tokens: list[int]  # ids that got a token
    cached: dict[int, int]  # tokens of the prompt that were cached, of ids that were told
    ended: list[tuple[int, int]]  # (id, reason)


@dataclass(frozen=True)
class Pages:
    """Where the pages are; free, evictable and held are all of them."""

    free: int
    evictable: int  # cached, and held by nobody
    held: int
    pinned: int  # of those held


class SchedulerDouble:
    """Drives one scheduler; every call checks its integrity in C++."""

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        max_batch: int,
        max_step_tokens: int,
        max_context: int = 1 << 20,
        *,
        foresight: int = PREDICTED,
    ) -> None:
        self._handle = native("testing.scheduler")(
            num_pages, page_size, max_batch, max_step_tokens, max_context, foresight
        )

    @property
    def pages(self) -> Pages:
        return Pages(*native("testing.pages")(self._handle))

    @property
    def available_pages(self) -> int:
        return self.pages.free + self.pages.evictable

    def add(
        self,
        request_id: int,
        prompt: int | Sequence[int],
        max_tokens: int,
        priority: int = 0,
        *,
        pin: bool = False,
        deadline: int = 0,
    ) -> bool:
        """False if the request can never fit. A number stands for a prompt of so many tokens that nobody else has."""
        tokens = range(1000 * request_id + 2, 1000 * request_id + 2 + prompt) if isinstance(prompt, int) else prompt
        shape = tvm_ffi.Shape(tuple(tokens))
        return bool(native("testing.add")(self._handle, request_id, shape, max_tokens, priority, pin, deadline))

    def expire(self, now: int) -> list[tuple[int, int]]:
        """What ended because its deadline has come."""
        return _pairs(native("testing.expire")(self._handle, now))

    def unpin(self, tokens: Sequence[int]) -> None:
        native("testing.unpin")(self._handle, tvm_ffi.Shape(tuple(tokens)))

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
            copies=_pairs(raw["copies"]),
            cached=dict(_pairs(raw["cached"])),
            tokens=list(raw["tokens"]),
            ended=_pairs(raw["ended"]),
        )


def _pairs(flat: Iterable[int]) -> list[tuple[int, int]]:
    values = list(flat)
    return list(zip(values[::2], values[1::2], strict=True))
