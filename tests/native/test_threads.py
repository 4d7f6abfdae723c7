"""The threads of a model: barriers hold, sleepers wake, and a busy machine gets fewer of them."""

from __future__ import annotations

import pytest

from cupola.engine.native_library import native

MS = 1_000_000


@pytest.mark.parametrize("spin_us", [0, 50])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_no_worker_passes_a_barrier_before_the_last_one_is_there(threads: int, spin_us: int) -> None:
    assert native("testing.count_on_team")(threads, threads, 40, 20, spin_us) == 0


def spend(most: int, *tasks: tuple[int, int, int]) -> list[int]:
    """The number of threads of each task: (length, stall, most threads that do not stall)."""
    return list(native("testing.spend_budget")(most, [number for task in tasks for number in task]))


def test_a_quiet_machine_uses_all_threads() -> None:
    assert spend(4, *[(2 * MS, 0, 4)] * 100) == [4] * 100


def test_one_lost_time_slice_changes_nothing() -> None:
    tasks = [(2 * MS, 0, 2)] * 20 + [(2 * MS, 4 * MS, 1)] + [(2 * MS, 0, 2)] * 20
    assert spend(2, *tasks) == [2] * 41


def test_beside_a_busy_process_one_thread_works_and_seldom_tries_another() -> None:
    chosen = spend(2, *[(3 * MS, 6 * MS, 1)] * 2000)
    assert set(chosen[:1]) == {2}
    assert chosen[-300:].count(2) <= 2
    assert 2 in chosen[-400:], "it must not give up for ever"


def test_all_threads_come_back_when_the_machine_is_free_again() -> None:
    chosen = spend(5, *[(3 * MS, 6 * MS, 1)] * 1000, *[(3 * MS, 0, 5)] * 1000)
    assert set(chosen[500:1000]) == {1, 2}
    assert set(chosen[-500:]) == {5}


def test_a_busy_core_of_many_costs_one_thread() -> None:
    chosen = spend(8, *[(MS, 4 * MS, 7)] * 3000)
    assert set(chosen[1000:]) == {7, 8}
    assert chosen[1000:].count(8) < 30
