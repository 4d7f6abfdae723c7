"""Random life of the scheduler, its pages and its prefix cache, checked against the rules that it promises.

The C++ side runs CheckIntegrity (every page is free, cached or held, and has exactly the holders that have it) after
every event; a broken law arrives here as an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, precondition, rule
from native_scheduler import CONSERVATIVE, DEADLINE, LENGTH, OPTIMISTIC, PREDICTED, STOP, SchedulerDouble, StepReport

MOST_PASSED = 32  # younger requests that one lets pass because it does not fit
PLAIN = 0  # the token that the double generates


@dataclass
class Expected:
    """What the test knows about one live request."""

    prompt: list[int]
    max_tokens: int
    priority: int
    arrival: int
    deadline: int
    pin: bool
    got: int = 0
    passed: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        return -self.priority, self.arrival

    @property
    def history(self) -> list[int]:
        return self.prompt + [PLAIN] * self.got


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, aborts, steps, stops, deadlines and failures in any order."""

    requests = Bundle("requests")

    @initialize(
        num_pages=st.integers(1, 24),
        page_size=st.sampled_from([1, 4, 16]),
        max_batch=st.integers(1, 8),
        max_step_tokens=st.integers(1, 40),
        max_context=st.integers(2, 200),
        foresight=st.sampled_from([PREDICTED, CONSERVATIVE, OPTIMISTIC]),
    )
    def create(
        self,
        num_pages: int,
        page_size: int,
        max_batch: int,
        max_step_tokens: int,
        max_context: int,
        foresight: int,
    ) -> None:
        self.num_pages, self.page_size, self.max_context = num_pages, page_size, max_context
        self.max_running, self.max_step_tokens = min(max_batch, max_step_tokens), max_step_tokens
        self.foresight = foresight
        self.scheduler = SchedulerDouble(
            num_pages, page_size, max_batch, max_step_tokens, max_context, foresight=foresight
        )
        self.live: dict[int, Expected] = {}
        self.was_running: set[int] = set()
        self.pinned: list[list[int]] = []
        self.next_id = 0
        self.now = 1

    @rule(
        target=requests,
        family=st.integers(0, 2),
        common=st.integers(0, 40),
        own=st.integers(0, 40),
        max_tokens=st.integers(0, 40),
        priority=st.sampled_from([0, 0, 0, 1, 2]),
        pin=st.sampled_from([False, False, False, True]),
        patience=st.sampled_from([0, 0, 3]),
    )
    def add(self, family: int, common: int, own: int, max_tokens: int, priority: int, pin: bool, patience: int) -> int:
        request_id, self.next_id = self.next_id, self.next_id + 1
        # Prompts of one family begin alike; then each has tokens of its own.
        prompt = [10 + (family + i) % 7 for i in range(common)] + [100 + request_id] * own or [2]
        cached = len(prompt) + max(max_tokens, 1) - 1  # the last token generated is never read again
        fits = len(prompt) + max_tokens <= self.max_context and -(-cached // self.page_size) <= self.num_pages
        deadline = self.now + patience if patience else 0
        assert self.scheduler.add(request_id, prompt, max_tokens, priority, pin=pin, deadline=deadline) == fits
        if fits:
            self.live[request_id] = Expected(prompt, max_tokens, priority, request_id, deadline, pin)
            if pin:
                self.pinned.append(prompt)
        return request_id

    @rule(request_id=consumes(requests))
    def abort(self, request_id: int) -> None:
        ended = self.scheduler.abort(request_id)
        assert len(ended) == (1 if request_id in self.live else 0)
        self.live.pop(request_id, None)
        self.was_running.discard(request_id)

    @rule()
    def let_time_pass(self) -> None:
        self.now += 1
        late = {i for i, expected in self.live.items() if 0 < expected.deadline <= self.now}
        assert set(self.scheduler.expire(self.now)) == {(request_id, DEADLINE) for request_id in late}
        for request_id in late:
            del self.live[request_id]
        self.was_running -= late

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        self.scheduler.unpin(data.draw(st.sampled_from(self.pinned)))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 8))
    def step(self, data: st.DataObject, count: int) -> None:
        stopping = data.draw(st.sets(st.sampled_from(sorted(self.live)), max_size=2))
        for _ in range(count):
            if self.live:
                self.take_step(stopping)

    @precondition(lambda self: self.live)
    @rule()
    def fail(self) -> None:
        report = self.scheduler.step((), fails=True)
        self.check_plan(report)
        assert {request_id for request_id, _ in report.ended} == {planned.id for planned in report.planned}
        for request_id, _ in report.ended:
            del self.live[request_id]
        self.was_running = set()

    def take_step(self, stopping: set[int]) -> None:
        report = self.scheduler.step(stopping)
        self.check_plan(report)
        for request_id, cached in report.cached.items():
            assert self.live[request_id].got == 0
            assert cached < len(self.live[request_id].prompt)
        for request_id in report.tokens:
            self.live[request_id].got += 1
            assert self.live[request_id].got <= self.live[request_id].max_tokens
        for request_id, reason in report.ended:
            expected = self.live.pop(request_id)  # a second end would not find it
            if reason not in (STOP, LENGTH):  # a pin that would take more than half of the pool
                assert expected.pin
                continue
            assert (reason == LENGTH) == (expected.got == expected.max_tokens)
        self.was_running = set(report.running) & set(self.live)
        pages = self.scheduler.pages
        assert pages.free + pages.evictable + pages.held == self.num_pages

    def check_plan(self, report: StepReport) -> None:
        ranks = [self.live[request_id].rank for request_id in report.running]
        assert ranks == sorted(ranks)
        assert len(report.running) <= self.max_running
        assert report.planned, "requests wait, but none runs"
        assert sum(planned.rows for planned in report.planned) + report.budget_left == self.max_step_tokens
        assert len({planned.id for planned in report.planned}) == len(report.planned)
        assert not (self.foresight == CONSERVATIVE and report.preemptions)
        self.check_that_work_is_conserved(report)
        self.check_that_nobody_is_passed_for_ever(report)

    def check_that_work_is_conserved(self, report: StepReport) -> None:
        # Who runs gets rows while the budget lasts, unless another computes what it needs; and the head waits only
        # for lack of room.
        if not report.budget_left:
            return
        planned = {planned.id for planned in report.planned}
        for request_id in set(report.running) - planned:
            mine = self.live[request_id].history
            shared = max(common_length(mine, self.live[other].history) for other in planned)
            assert shared >= min(self.page_size, len(mine) - 1)
        if not report.preemptions:
            assert not report.head_fits

    def check_that_nobody_is_passed_for_ever(self, report: StepReport) -> None:
        # First come, first served, but for some that fit where an older one does not.
        newcomers = set(report.running) - self.was_running
        waiting = [expected for request_id, expected in self.live.items() if request_id not in report.running]
        for expected in waiting:
            expected.passed += sum(self.live[request_id].rank > expected.rank for request_id in newcomers)
            assert expected.passed <= MOST_PASSED
        assert report.num_waiting == len(waiting)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        # The first in rank of those that run is never preempted and moves on by a token a step at least.
        bound = sum(len(expected.prompt) + expected.max_tokens for expected in self.live.values())
        for _ in range(bound):
            if not self.live:
                break
            self.take_step(set())
        assert not self.live, "somebody starves"
        for prompt in self.pinned:  # some of them for the second time
            self.scheduler.unpin(prompt)
        assert self.scheduler.available_pages == self.num_pages


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
