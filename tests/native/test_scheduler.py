"""The scheduler's rules, one by one, on small cases that can be followed by hand."""

from __future__ import annotations

from native_scheduler import ABORT, ERROR, LENGTH, OPTIMISTIC, STOP, Planned, SchedulerDouble


def test_a_prompt_is_read_in_chunks_beside_running_decodes() -> None:
    scheduler = SchedulerDouble(num_pages=16, page_size=4, max_batch=4, max_step_tokens=5)
    scheduler.add(1, prompt=2, max_tokens=8)
    assert scheduler.step().planned == [Planned(1, 2, True)]
    scheduler.add(2, prompt=9, max_tokens=1)
    # The decode keeps its row in every step; the prompt gets what is left of five: 4 + 4 + 1.
    assert scheduler.step().planned == [Planned(1, 1, True), Planned(2, 4, False)]
    assert scheduler.step().planned == [Planned(1, 1, True), Planned(2, 4, False)]
    last = scheduler.step()
    assert last.planned == [Planned(1, 1, True), Planned(2, 1, True)]
    assert last.ended == [(2, LENGTH)]


def test_several_short_prompts_share_a_step() -> None:
    scheduler = SchedulerDouble(num_pages=16, page_size=4, max_batch=8, max_step_tokens=10)
    for request_id in range(4):
        scheduler.add(request_id, prompt=3, max_tokens=4)
    assert [(p.id, p.rows) for p in scheduler.step().planned] == [(0, 3), (1, 3), (2, 3), (3, 1)]


def test_higher_priority_goes_first_and_order_is_kept_within_one() -> None:
    scheduler = SchedulerDouble(num_pages=16, page_size=4, max_batch=1, max_step_tokens=8)
    for request_id, priority in [(1, 0), (2, 0), (3, 5), (4, 5)]:
        scheduler.add(request_id, prompt=1, max_tokens=1, priority=priority)
    assert [scheduler.step().ended for _ in range(4)] == [[(i, LENGTH)] for i in (3, 4, 1, 2)]


def test_preemption_takes_the_newest_of_the_lowest_priority_which_resumes_first() -> None:
    scheduler = SchedulerDouble(num_pages=6, page_size=2, max_batch=4, max_step_tokens=16, foresight=OPTIMISTIC)
    for request_id, priority in [(1, 0), (2, 1), (3, 0)]:
        scheduler.add(request_id, prompt=1, max_tokens=6, priority=priority)
    scheduler.add(4, prompt=1, max_tokens=3)  # waits: the free pages are kept for the growth of the others
    for _ in range(4):
        assert not (report := scheduler.step()).preemptions
        assert report.running == [2, 1, 3]
    # All three need a third page now, and there are six: 3 gives up its two.
    report = scheduler.step()
    assert report.preemptions == 1
    assert report.running == [2, 1]
    assert scheduler.step().ended == [(2, LENGTH), (1, LENGTH)]
    # 3 reads its prompt and its four tokens again, and stands before 4, which never ran.
    report = scheduler.step()
    assert report.planned == [Planned(3, 5, True), Planned(4, 1, True)]
    assert [scheduler.step().ended for _ in range(2)] == [[(3, LENGTH)], [(4, LENGTH)]]


def test_what_can_never_fit_is_refused() -> None:
    scheduler = SchedulerDouble(num_pages=4, page_size=4, max_batch=2, max_step_tokens=8, max_context=20)
    assert scheduler.add(1, prompt=10, max_tokens=7)  # 16 tokens are cached: exactly the pool
    assert not scheduler.add(2, prompt=10, max_tokens=8)  # 17 are not
    small = SchedulerDouble(num_pages=100, page_size=4, max_batch=2, max_step_tokens=8, max_context=20)
    assert small.add(1, prompt=10, max_tokens=10)
    assert not small.add(2, prompt=10, max_tokens=11)
    assert not small.add(3, prompt=10, max_tokens=1 << 40)


def test_a_request_that_fills_the_whole_pool_runs_to_its_end() -> None:
    scheduler = SchedulerDouble(num_pages=3, page_size=2, max_batch=2, max_step_tokens=3)
    scheduler.add(1, prompt=4, max_tokens=3)
    ended = [end for _ in range(4) for end in scheduler.step().ended]
    assert ended == [(1, LENGTH)]
    assert scheduler.available_pages == 3


def test_an_abort_gives_pages_back_wherever_the_request_is() -> None:
    scheduler = SchedulerDouble(num_pages=8, page_size=2, max_batch=2, max_step_tokens=4)
    scheduler.add(1, prompt=2, max_tokens=4)
    scheduler.step()  # 1 decodes
    scheduler.add(2, prompt=10, max_tokens=1)
    scheduler.step()  # 2 is in the middle of its prompt
    scheduler.add(3, prompt=2, max_tokens=1)  # 3 waits
    for request_id in (2, 3, 1):
        assert scheduler.abort(request_id) == [(request_id, ABORT)]
        assert scheduler.abort(request_id) == []
    assert scheduler.available_pages == 8


def test_a_stop_id_ends_without_a_token() -> None:
    scheduler = SchedulerDouble(num_pages=4, page_size=4, max_batch=2, max_step_tokens=8)
    scheduler.add(1, prompt=2, max_tokens=4)
    report = scheduler.step(stopping=[1])
    assert report.ended == [(1, STOP)]
    assert report.tokens == []


def test_a_failed_step_ends_its_own_requests_only() -> None:
    scheduler = SchedulerDouble(num_pages=8, page_size=4, max_batch=4, max_step_tokens=4)
    scheduler.add(1, prompt=4, max_tokens=4)
    scheduler.add(2, prompt=1, max_tokens=4)  # no budget is left for it in the first step
    report = scheduler.step(fails=True)
    assert report.ended == [(1, ERROR)]
    assert scheduler.available_pages == 8
    assert [p.id for p in scheduler.step().planned] == [2]
