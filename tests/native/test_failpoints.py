"""Faults on purpose: what they do to an engine, and that they are read with care."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from native_driver import Collector, greedy, run

from cupola.engine.native import NativeEngine, scripted
from cupola.engine.native_library import native
from cupola.engine.request import EngineConfig
from cupola.errors import EngineError
from oracle import Oracle

ORACLE = Oracle()


@pytest.fixture(autouse=True)
def _all_off_after() -> Iterator[None]:
    yield
    set_failpoints("")


def set_failpoints(settings: str) -> None:
    native("testing.set_failpoints")(settings)


@pytest.mark.parametrize("place", ["schedule", "allocate", "forward", "sample"])
def test_a_fault_ends_its_step_and_what_comes_after_is_right(place: str) -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=60, max_batch=4), check_every_step=True)
    set_failpoints(f"{place}=throw*1")
    results = run(engine, [greedy(i, [i, i + 1], 12) for i in range(10)])
    failed = [i for i, result in results.items() if result.reasons == ["error"]]
    assert failed, "nothing failed"
    assert all(results[i].error == f"injected fault in {place}" for i in failed)
    for i in set(results) - set(failed):
        assert results[i].tokens == ORACLE.generate([i, i + 1], 12)[0]
    assert engine.alive
    assert engine.stats().pages_free == 60
    assert run(engine, [greedy(99, [5], 5)])[99].tokens == ORACLE.generate([5], 5)[0]
    engine.close()


def test_faults_while_pages_are_given_out_leave_the_books_right() -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=40, max_batch=4), check_every_step=True)
    for round_number in range(30):
        # The prompts begin alike, so that pages are shared, and the fault hits another of a request's pages each time.
        set_failpoints("allocate=throw:0.15*2")
        requests = [greedy(100 * round_number + i, [7] * 40 + [i], 20) for i in range(8)]
        results = run(engine, requests)
        set_failpoints("")
        for request in requests:
            if results[request.id].reasons != ["error"]:
                assert results[request.id].tokens == ORACLE.generate(request.token_ids, 20)[0]
        # A good step in between: after three failures in a row an engine gives up, and rightly.
        assert run(engine, [greedy(100 * round_number + 99, [1], 1)])[100 * round_number + 99].reasons == ["length"]
    assert engine.alive
    stats = engine.stats()
    assert stats.failed > 0 < stats.finished
    assert stats.pages_free == 40
    engine.close()


def test_an_engine_that_cannot_publish_dies_and_answers_everybody() -> None:
    engine = NativeEngine(scripted(step_us=50_000), EngineConfig(num_pages=60, max_batch=2))
    set_failpoints("publish=throw*1")
    collector, accepted = Collector(engine), []
    with contextlib.suppress(EngineError):  # on a busy machine it may die while we still add
        for i in range(5):
            engine.add(greedy(i, [i], 50))
            accepted.append(i)
    assert accepted
    results = collector.until_ended(accepted)
    assert {tuple(result.reasons) for result in results.values()} == {("error",)}
    collector.until(lambda: not engine.alive)
    assert engine.failure == "injected fault in publish"
    engine.close()


def test_faults_with_a_probability_hit_the_same_visits_every_time() -> None:
    def failures() -> list[int]:
        set_failpoints("forward=throw:0.3")
        engine = NativeEngine(scripted(), EngineConfig(num_pages=60, max_batch=1))
        results = {}
        for i in range(20):
            results.update(run(engine, [greedy(i, [i], 1)]))
        engine.close()
        return [i for i, result in results.items() if result.reasons == ["error"]]

    first = failures()
    assert 1 < len(first) < 15
    assert failures() == first


def test_a_slow_step_is_slow_and_right() -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=60))
    set_failpoints("forward=sleep:20ms*3")
    assert run(engine, [greedy(1, [7], 6)])[1].tokens == ORACLE.generate([7], 6)[0]
    assert engine.stats().step_seconds >= 0.06
    engine.close()


@pytest.mark.parametrize(
    "settings",
    ["forward", "forward=", "forward=explode", "nowhere=throw", "forward=throw:x", "forward=throw:-1", "forward=sleep",
     "forward=sleep:5", "forward=throw*x", "forward=throw;;", "=throw"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_and_changes_nothing(settings: str) -> None:
    with pytest.raises(Exception, match="failpoint"):
        set_failpoints(settings)


@pytest.mark.parametrize(("settings", "outcome"), [("forward=throw*1", "error"), ("forward=throw:0", "length")])
def test_the_environment_sets_them(settings: str, outcome: str) -> None:
    code = (
        "from native_driver import greedy, run\n"
        "from cupola.engine.native import NativeEngine, scripted\n"
        "from cupola.engine.request import EngineConfig\n"
        "print(run(NativeEngine(scripted(), EngineConfig(num_pages=9)), [greedy(1, [1], 2)])[1].reasons[0])"
    )
    environment = os.environ | {"CUPOLA_FAILPOINTS": settings, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == outcome
