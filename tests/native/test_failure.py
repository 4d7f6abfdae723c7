"""What a failing model does to the engine: errors that name the cause, and never a silent hang."""

from __future__ import annotations

import contextlib
import select

import pytest
from native_driver import PATIENCE, Collector, greedy, run

from cupola.engine.native import NativeEngine, scripted
from cupola.engine.request import EngineConfig
from cupola.errors import EngineError
from oracle import Oracle

ORACLE = Oracle()


@pytest.mark.parametrize("fail_at_step", [1, 2, 9])
def test_a_failed_step_ends_its_batch_and_the_next_requests_succeed(fail_at_step: int) -> None:
    engine = NativeEngine(
        scripted(fail_at_step=fail_at_step), EngineConfig(num_pages=100, max_batch=4), check_every_step=True
    )
    results = run(engine, [greedy(i, [i, i + 1], 12) for i in range(10)])
    failed = [i for i, result in results.items() if result.reasons == ["error"]]
    assert 1 <= len(failed) <= 4
    for i, result in results.items():
        assert len(result.reasons) == 1
        expected = ORACLE.generate([i, i + 1], 12)[0]
        if i in failed:
            assert result.error == f"scripted failure of step {fail_at_step}"
            assert result.tokens == expected[: len(result.tokens)]
        else:
            assert result.tokens == expected
    stats = engine.stats()
    assert engine.alive
    assert engine.failure is None
    assert (stats.failed, stats.finished, stats.pages_free) == (len(failed), 10 - len(failed), 100)
    assert run(engine, [greedy(99, [5], 5)])[99].tokens == ORACLE.generate([5], 5)[0]
    engine.close()


def test_failed_steps_with_a_good_one_between_do_not_kill_the_engine() -> None:
    engine = NativeEngine(scripted(fail_at_step=1, fail_steps=2), EngineConfig(num_pages=10, max_batch=1))
    results = run(engine, [greedy(i, [i], 3) for i in range(3)])
    assert [results[i].reasons for i in range(3)] == [["error"], ["error"], ["length"]]
    assert engine.alive
    engine.close()


def test_an_engine_that_keeps_failing_gives_up_and_says_so() -> None:
    engine = NativeEngine(scripted(fail_at_step=1, fail_steps=1000), EngineConfig(num_pages=10, max_batch=1))
    accepted = []
    with contextlib.suppress(EngineError):  # it may die while we still add
        for i in range(6):
            engine.add(greedy(i, [i], 3))
            accepted.append(i)
    collector = Collector(engine)
    results = collector.until_ended(accepted)
    assert len(accepted) >= 3
    assert all(results[i].reasons == ["error"] for i in accepted)
    collector.until(lambda: not engine.alive)
    assert engine.failure == "scripted failure of step 3"
    with pytest.raises(EngineError, match="scripted failure of step 3"):
        engine.add(greedy(10, [1], 1))
    stats = engine.stats()
    assert (stats.failed, stats.running, stats.waiting, stats.pages_free) == (len(accepted), 0, 0, 10)
    engine.close()


def test_the_descriptor_tells_of_the_engines_death() -> None:
    engine = NativeEngine(scripted(fail_at_step=1, fail_steps=3), EngineConfig(num_pages=10, max_batch=1))
    for i in range(3):
        engine.add(greedy(i, [i], 3))
    while engine.alive:
        assert select.select([engine.event_fd], [], [], PATIENCE)[0], "no sign of its death"
        engine.take()
    engine.close()


def test_logits_that_are_not_finite_end_their_own_request_only() -> None:
    engine = NativeEngine(scripted(poison_id=500), EngineConfig(num_pages=100), check_every_step=True)
    requests = [greedy(i, [i, 500] if i % 4 == 0 else [i, 7], 10) for i in range(16)]
    results = run(engine, requests)
    for request in requests:
        if request.id % 4 == 0:
            assert results[request.id].reasons == ["error"]
            assert "not finite" in (results[request.id].error or "")
        else:
            assert results[request.id].tokens == ORACLE.generate(request.token_ids, 10)[0]
    assert engine.alive
    assert engine.stats().pages_free == 100
    engine.close()


def test_more_token_slots_than_32_bits_count_are_refused() -> None:
    with pytest.raises(EngineError, match="token slots"):
        NativeEngine(scripted(page_size=1 << 15), EngineConfig(num_pages=1 << 16, page_size=1 << 15))
