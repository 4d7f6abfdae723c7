"""How requests share pages: what is computed once, copied, held back, pinned, and let go."""

from __future__ import annotations

from native_scheduler import (
    ABORT,
    CONSERVATIVE,
    DEADLINE,
    ERROR,
    LENGTH,
    OPTIMISTIC,
    REFUSED,
    Planned,
    SchedulerDouble,
    StepReport,
)

PREFIX = list(range(100, 140))  # ten pages of four


def make(num_pages: int = 64, page_size: int = 4, max_step_tokens: int = 64, max_batch: int = 16) -> SchedulerDouble:
    return SchedulerDouble(num_pages, page_size, max_batch, max_step_tokens)


def rows(report: StepReport) -> dict[int, int]:
    return {planned.id: planned.rows for planned in report.planned}


def test_eight_that_come_together_compute_their_prefix_once() -> None:
    scheduler = make(max_step_tokens=24)
    for i in range(8):
        scheduler.add(i, [*PREFIX, 200 + i, 200 + i], max_tokens=2)
    assert rows(scheduler.step()) == {0: 24}  # all that the step can hold; the others wait for it
    assert rows(scheduler.step()) == {0: 18}
    assert rows(scheduler.step()) == {0: 1} | dict.fromkeys(range(1, 8), 2)


def test_n_answers_to_one_prompt_read_it_once() -> None:
    scheduler = make()
    prompt = [*PREFIX, 1000, 1001]  # its end fills no page
    for i in range(4):
        scheduler.add(i, prompt, max_tokens=3)
    assert rows(scheduler.step()) == {0: 42}
    report = scheduler.step()
    # One row each, to sample from: whole pages are shared, the unfinished one is copied.
    assert rows(report) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert len(report.copies) == 3
    assert report.cached == {1: 41, 2: 41, 3: 41}


def test_a_prompt_that_was_read_before_is_found_but_for_its_last_token() -> None:
    scheduler = make()
    scheduler.add(1, PREFIX, max_tokens=1)
    assert scheduler.step().cached == {1: 0}
    assert scheduler.pages.evictable == 10
    scheduler.add(2, PREFIX, max_tokens=1)
    report = scheduler.step()
    assert report.planned == [Planned(2, 1, True)]
    assert report.cached == {2: 39}
    assert len(report.copies) == 1  # its last page, three tokens of which are known
    assert scheduler.pages.evictable == 10  # and which is equal to the one that was there


def test_an_answer_is_found_when_the_conversation_goes_on() -> None:
    scheduler = make()
    scheduler.add(1, PREFIX, max_tokens=10)
    while scheduler.pages.held or not scheduler.pages.evictable:
        scheduler.step()
    scheduler.add(2, [*PREFIX, *[0] * 10, 7, 7, 7], max_tokens=1)  # the double generates zeros
    # Nine of ten tokens generated were computed: two whole pages.
    assert scheduler.step().cached == {2: 48}


def test_prompts_that_part_within_a_page_share_what_comes_before() -> None:
    scheduler = make()
    scheduler.add(1, [*PREFIX, 1, 2, 3, 4, 5], max_tokens=1)
    scheduler.step()
    scheduler.add(2, [*PREFIX, 1, 2, 9, 9, 9], max_tokens=1)
    report = scheduler.step()
    assert report.planned == [Planned(2, 3, True)]
    assert len(report.copies) == 1


def test_who_waits_for_a_page_computes_it_when_the_other_goes() -> None:
    scheduler = make(max_step_tokens=8)
    scheduler.add(1, [*PREFIX, 1], max_tokens=1)
    scheduler.add(2, [*PREFIX, 2], max_tokens=1)
    assert rows(scheduler.step()) == {1: 8}
    assert scheduler.abort(1) == [(1, ABORT)]
    assert rows(scheduler.step()) == {2: 8}
    assert rows(scheduler.step()) == {2: 8}


def test_who_waits_for_a_page_computes_it_when_the_other_fails() -> None:
    scheduler = make(max_step_tokens=64)
    scheduler.add(1, [*PREFIX, 1], max_tokens=1)
    scheduler.add(2, [*PREFIX, 2], max_tokens=1)
    assert scheduler.step(fails=True).ended == [(1, ERROR)]
    assert rows(scheduler.step()) == {2: 41}


def test_a_page_that_fills_equally_twice_is_kept_once() -> None:
    scheduler = make()
    for i in (1, 2):
        scheduler.add(i, [5, 5], max_tokens=30)
    while len((report := scheduler.step()).running) < 2 or report.tokens != [1, 2]:
        pass
    for _ in range(20):
        scheduler.step()
    # Both have generated the same: whole pages are shared, and each has one of its own at most.
    assert scheduler.pages.held <= 24 // 4 + 2


def test_what_is_cached_makes_room_for_what_runs() -> None:
    scheduler = make(num_pages=12)
    for i in range(5):
        scheduler.add(i, prompt=40, max_tokens=2)
        assert scheduler.step().cached == {i: 0}
        scheduler.step()
    pages = scheduler.pages
    assert (pages.free + pages.evictable, pages.held) == (12, 0)


def test_a_pinned_prefix_stays() -> None:
    scheduler = make(num_pages=24)
    scheduler.add(1, PREFIX, max_tokens=0, pin=True)
    assert scheduler.step().ended == [(1, LENGTH)]
    assert scheduler.pages.pinned == 10
    for i in range(2, 8):
        scheduler.add(i, prompt=50, max_tokens=2)
        while not scheduler.step().ended:
            pass
    scheduler.add(8, [*PREFIX, 9], max_tokens=1)
    assert scheduler.step().cached == {8: 40}
    scheduler.unpin(PREFIX)
    assert scheduler.pages.held == scheduler.pages.pinned == 0
    scheduler.unpin(PREFIX)  # not again


def test_a_prefix_is_pinned_once() -> None:
    scheduler = make()
    for i in (1, 2):
        scheduler.add(i, PREFIX, max_tokens=0, pin=True)
        while scheduler.step().ended != [(i, LENGTH)]:
            pass
    assert scheduler.pages.pinned == 10
    scheduler.unpin(PREFIX)
    assert scheduler.pages.held == 0


def test_pins_take_at_most_half_of_the_pages() -> None:
    scheduler = make(num_pages=19)
    scheduler.add(1, PREFIX, max_tokens=0, pin=True)
    assert scheduler.step().ended == [(1, REFUSED)]
    assert scheduler.pages.pinned == 0


def test_pins_yield_to_a_request_that_could_never_run_otherwise() -> None:
    scheduler = make(num_pages=20)
    scheduler.add(1, PREFIX, max_tokens=0, pin=True)
    scheduler.step()
    scheduler.add(2, prompt=60, max_tokens=2)
    assert rows(scheduler.step()) == {2: 60}
    assert scheduler.pages.pinned == 0


def test_deadlines_end_what_waits_and_what_runs() -> None:
    scheduler = make(max_batch=1)
    scheduler.add(1, prompt=4, max_tokens=9, deadline=10)
    scheduler.add(2, prompt=4, max_tokens=9, deadline=20)
    scheduler.add(3, prompt=4, max_tokens=9)
    scheduler.step()
    assert scheduler.expire(9) == []
    assert scheduler.expire(20) == [(1, DEADLINE), (2, DEADLINE)]
    assert rows(scheduler.step()) == {3: 4}
    assert scheduler.expire(1 << 62) == []


def test_small_requests_pass_a_large_one_but_not_for_ever() -> None:
    scheduler = make(num_pages=20, max_step_tokens=256, max_batch=4)
    scheduler.add(0, prompt=40, max_tokens=1000 - 40 - 920)  # half of the pool, for forty steps
    scheduler.step()
    scheduler.add(1, prompt=76, max_tokens=4)  # all of the pool
    for i in range(2, 100):
        scheduler.add(i, prompt=4, max_tokens=1)
    passed = 0
    while 1 not in (report := scheduler.step()).running:
        passed += sum(planned.id > 1 for planned in report.planned)
    assert passed == 32
    assert len(report.running) == 1


def test_the_conservative_scheduler_lets_in_what_surely_fits_and_the_optimistic_one_what_fits_now() -> None:
    running = {}
    for foresight in (CONSERVATIVE, OPTIMISTIC):
        scheduler = SchedulerDouble(32, 4, 16, 64, foresight=foresight)
        for i in range(8):
            scheduler.add(i, prompt=8, max_tokens=57)  # sixteen pages in the end
        running[foresight] = len(scheduler.step().running)
    assert running == {CONSERVATIVE: 2, OPTIMISTIC: 8}
