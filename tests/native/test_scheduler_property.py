"""Random life of the scheduler and its page pool, checked against the rules that it promises.

The C++ side runs CheckIntegrity (free + held == all pages, no page held twice) after every event; a broken law
arrives here as an exception.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, precondition, rule
from native_scheduler import LENGTH, STOP, SchedulerDouble, StepReport


@dataclass
class Expected:
    """What the test knows about one live request."""

    prompt: int
    max_tokens: int
    priority: int
    arrival: int
    got: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        return -self.priority, self.arrival


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, aborts, steps, stops and failures in any order."""

    requests = Bundle("requests")

    @initialize(
        num_pages=st.integers(1, 24),
        page_size=st.sampled_from([1, 4, 16]),
        max_batch=st.integers(1, 8),
        max_step_tokens=st.integers(1, 40),
        max_context=st.integers(2, 200),
    )
    def create(self, num_pages: int, page_size: int, max_batch: int, max_step_tokens: int, max_context: int) -> None:
        self.num_pages, self.page_size, self.max_context = num_pages, page_size, max_context
        self.max_running, self.max_step_tokens = min(max_batch, max_step_tokens), max_step_tokens
        self.scheduler = SchedulerDouble(num_pages, page_size, max_batch, max_step_tokens, max_context)
        self.live: dict[int, Expected] = {}
        self.was_running: set[int] = set()
        self.next_id = 0

    @rule(
        target=requests,
        prompt=st.integers(1, 60),
        max_tokens=st.integers(1, 40),
        priority=st.sampled_from([0, 0, 0, 1, 2]),
    )
    def add(self, prompt: int, max_tokens: int, priority: int) -> int:
        request_id, self.next_id = self.next_id, self.next_id + 1
        cached = prompt + max_tokens - 1  # the last token generated is never read again
        fits = prompt + max_tokens <= self.max_context and -(-cached // self.page_size) <= self.num_pages
        assert self.scheduler.add(request_id, prompt, max_tokens, priority) == fits
        if fits:
            self.live[request_id] = Expected(prompt, max_tokens, priority, request_id)
        return request_id

    @rule(request_id=consumes(requests))
    def abort(self, request_id: int) -> None:
        ended = self.scheduler.abort(request_id)
        assert len(ended) == (1 if request_id in self.live else 0)
        self.live.pop(request_id, None)
        self.was_running.discard(request_id)

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
        for request_id in report.tokens:
            self.live[request_id].got += 1
            assert self.live[request_id].got <= self.live[request_id].max_tokens
        for request_id, reason in report.ended:
            expected = self.live.pop(request_id)  # a second end would not find it
            assert reason in (STOP, LENGTH)
            assert (reason == LENGTH) == (expected.got == expected.max_tokens)
        self.was_running = set(report.running) & set(self.live)

    def check_plan(self, report: StepReport) -> None:
        ranks = [self.live[request_id].rank for request_id in report.running]
        assert ranks == sorted(ranks)
        assert len(report.running) <= self.max_running
        assert report.planned, "requests wait, but none runs"
        assert sum(planned.rows for planned in report.planned) + report.budget_left == self.max_step_tokens
        assert len({planned.id for planned in report.planned}) == len(report.planned)
        # Work is conserved: who runs gets rows while the budget lasts, and the head waits only for lack of room.
        if report.budget_left:
            assert {planned.id for planned in report.planned} == set(report.running)
            assert not report.head_fits
        # First come, first served: whoever came in this time stands before all that still wait.
        waiting = [expected.rank for request_id, expected in self.live.items() if request_id not in report.running]
        for request_id in set(report.running) - self.was_running:
            assert all(self.live[request_id].rank < rank for rank in waiting)
        assert report.num_waiting == len(waiting)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        # The first in rank of those that run is never preempted and moves on by a token a step at least.
        bound = sum(expected.prompt + expected.max_tokens for expected in self.live.values())
        for _ in range(bound):
            if not self.live:
                break
            self.take_step(set())
        assert not self.live, "somebody starves"
        assert self.scheduler.free_pages == self.num_pages


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
