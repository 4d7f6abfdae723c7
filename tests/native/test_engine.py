"""The engine on the scripted model: every token is checked against the oracle, whatever happens around it."""

from __future__ import annotations

import dataclasses
import gc
import random
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from native_driver import PATIENCE, Collector, greedy, run, wait_until

from cupola.engine.native import NativeEngine, scripted
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from cupola.errors import ContextLengthError, EngineError, OverloadedError, RequestError
from oracle import Oracle

EOS = 300
SCRIPT = {"num_ids": 256, "eos_id": EOS, "eos_every": 50}
ORACLE = Oracle(**SCRIPT)
AMPLE = EngineConfig(num_pages=2000, max_batch=64)


def random_requests(count: int, seed: int = 0, longest: int = 150) -> list[GenerateRequest]:
    rng = random.Random(seed)
    return [
        greedy(
            request_id,
            [rng.randrange(256) for _ in range(rng.randint(1, longest))],
            rng.randint(1, 60),
            stop=(EOS,),
            priority=rng.choice([0, 0, 1]),
        )
        for request_id in range(count)
    ]


def assert_as_computed(requests: list[GenerateRequest], results: dict) -> None:
    for request in requests:
        tokens, reason = ORACLE.generate(request.token_ids, request.sampling.max_tokens, request.stop_token_ids)
        assert results[request.id].tokens == tokens
        assert results[request.id].reasons == [reason]


@pytest.mark.parametrize("max_batch", [1, 7, 32])
@pytest.mark.parametrize("max_step_tokens", [3, 64, 512])
@pytest.mark.parametrize("num_pages", [2000, 14])  # ample; and one long request nearly fills it
def test_tokens_do_not_depend_on_batch_chunks_or_pages(max_batch: int, max_step_tokens: int, num_pages: int) -> None:
    requests = random_requests(40)
    config = EngineConfig(
        num_pages=num_pages, max_batch=max_batch, max_step_tokens=max_step_tokens, admission="optimistic"
    )
    # Steps that take a while, so that requests meet whose pages do not fit, also on a busy machine.
    engine = NativeEngine(scripted(**SCRIPT, step_us=300 if num_pages == 14 else 0), config, check_every_step=True)
    results = run(engine, requests)
    assert_as_computed(requests, results)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.pages_free) == (0, 0, num_pages)
    if num_pages == 14 and min(max_batch, max_step_tokens) > 1:
        assert stats.preemptions > 0
    engine.close()


@pytest.mark.parametrize("page_size", [1, 5, 64])
def test_tokens_do_not_depend_on_the_page_size(page_size: int) -> None:
    requests = random_requests(20, seed=1)
    config = EngineConfig(num_pages=260 // page_size, page_size=page_size, max_batch=8, max_step_tokens=32)
    engine = NativeEngine(scripted(page_size=page_size, **SCRIPT), config, check_every_step=True)
    assert_as_computed(requests, run(engine, requests))
    engine.close()


def test_sampled_tokens_do_not_depend_on_the_company() -> None:
    hot = SamplingParams(temperature=8.0, top_p=0.95, seed=11, max_tokens=40)
    requests = [
        dataclasses.replace(request, sampling=dataclasses.replace(hot, seed=100 + request.id))
        for request in random_requests(24, seed=2, longest=60)
    ]
    alone = NativeEngine(scripted(**SCRIPT), EngineConfig(num_pages=8, max_batch=1, max_step_tokens=9))
    crowded = EngineConfig(num_pages=20, max_batch=16, admission="optimistic")
    together = NativeEngine(scripted(**SCRIPT, step_us=300), crowded, check_every_step=True)
    first, second = run(alone, requests), run(together, requests)
    assert together.stats().preemptions > 0
    assert {i: r.tokens for i, r in first.items()} == {i: r.tokens for i, r in second.items()}
    assert len({tuple(r.tokens) for r in first.values()}) == len(requests)
    alone.close()
    together.close()


def test_clients_behind_one_prefix_get_the_same_tokens_and_compute_it_once() -> None:
    prefix = [i % 250 for i in range(1000)]
    requests = [greedy(i, [*prefix, i], 20) for i in range(8)]
    engine = NativeEngine(scripted(**SCRIPT), EngineConfig(num_pages=200, max_step_tokens=256), check_every_step=True)
    assert_as_computed(requests, run(engine, requests))
    stats = engine.stats()
    assert stats.prefix_queries == 8 * 1001
    assert stats.prefix_hits == 7 * 1000
    assert stats.pages_cached >= 1000 // 16
    run(engine, [dataclasses.replace(greedy(100, [*prefix, 1], 5), cache_seed=1)])
    assert engine.stats().prefix_hits == 7 * 1000, "another seed shares nothing"
    engine.close()


def test_without_the_prefix_cache_nothing_is_shared() -> None:
    engine = NativeEngine(scripted(**SCRIPT), EngineConfig(num_pages=200, prefix_cache=False), check_every_step=True)
    for i in range(2):
        assert_as_computed([greedy(i, range(100), 20)], run(engine, [greedy(i, range(100), 20)]))
    stats = engine.stats()
    assert (stats.prefix_hits, stats.pages_cached) == (0, 0)
    engine.close()


def test_a_pinned_prompt_stays_until_it_is_unpinned() -> None:
    engine = NativeEngine(scripted(**SCRIPT), EngineConfig(num_pages=40), check_every_step=True)
    prompt = list(range(100))
    pin = dataclasses.replace(greedy(1, prompt, 0), pin_prefix=True, cache_seed=7)
    assert run(engine, [pin])[1].reasons == ["length"]
    assert (engine.stats().pages_pinned, engine.stats().pages_free) == (6, 34)
    engine.unpin(prompt)
    engine.unpin(prompt, cache_seed=7)
    Collector(engine).until_stats(lambda stats: (stats.pages_pinned, stats.pages_free) == (0, 40))
    engine.close()


def test_aborts_of_others_change_nothing() -> None:
    requests = random_requests(60, seed=3)
    engine = NativeEngine(
        scripted(**SCRIPT), EngineConfig(num_pages=40, max_batch=16, max_step_tokens=48), check_every_step=True
    )
    collector = Collector(engine)
    for request in requests:
        engine.add(request)
    victims = [request.id for request in requests if request.id % 3 == 0]
    for victim in victims:
        collector.poll()
        engine.abort(victim)
        engine.abort(victim)
    results = collector.until_ended(range(60))
    assert_as_computed([request for request in requests if request.id not in victims], results)
    assert all(len(results[victim].reasons) == 1 for victim in victims)
    assert engine.stats().pages_free == 40
    engine.close()


def test_64_at_once_from_several_threads() -> None:
    requests = random_requests(64, seed=4)
    engine = NativeEngine(scripted(**SCRIPT), AMPLE)
    threads = [
        threading.Thread(target=lambda part=part: [engine.add(request) for request in requests[part::4]])
        for part in range(4)
    ]
    for thread in threads:
        thread.start()
    results = Collector(engine).until_ended(range(64))
    for thread in threads:
        thread.join()
    assert_as_computed(requests, results)
    stats = engine.stats()
    assert stats.finished == 64
    assert stats.prompt_tokens == sum(len(request.token_ids) for request in requests)
    stops = sum(result.reasons == ["stop"] for result in results.values())
    assert stats.generated_tokens == sum(len(result.tokens) for result in results.values()) + stops
    engine.close()


def test_abort_in_queue_prefill_and_decode_gives_all_pages_back() -> None:
    engine = NativeEngine(scripted(step_us=50_000), EngineConfig(num_pages=500, max_batch=2, max_step_tokens=8))
    collector = Collector(engine)
    engine.add(greedy(1, range(4), 2000))
    collector.until(lambda: 1 in collector.results)  # it decodes
    engine.add(greedy(2, [7] * 1500, 500))
    collector.until_stats(lambda stats: stats.running == 2)  # in its prompt: 200 steps long
    engine.add(greedy(3, range(4), 10))
    collector.until_stats(lambda stats: stats.waiting == 1)  # no room in the batch
    for request_id in (3, 2, 1):
        engine.abort(request_id)
    results = collector.until_ended([1, 2, 3])
    assert [results[i].reasons for i in (1, 2, 3)] == [["abort"]] * 3
    assert results[2].tokens == results[3].tokens == []
    stats = engine.stats()
    assert (stats.pages_free, stats.running, stats.waiting, stats.aborted) == (500, 0, 0, 3)
    engine.close()


def test_min_tokens_holds_the_stop_id_back() -> None:
    oracle = Oracle(eos_id=EOS, eos_every=1)  # the model wants to stop at once
    engine = NativeEngine(scripted(eos_id=EOS, eos_every=1), AMPLE)
    request = greedy(1, [5, 6], 10, stop=(EOS,))
    assert run(engine, [request])[1].tokens == oracle.generate([5, 6], 10, (EOS,))[0] == []
    held = dataclasses.replace(request, id=2, sampling=dataclasses.replace(request.sampling, min_tokens=4))
    result = run(engine, [held])[2]
    assert len(result.tokens) == 4
    assert EOS not in result.tokens
    assert result.reasons == ["stop"]
    engine.close()


def test_one_token_and_a_full_context() -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=4, page_size=16, max_context=65))
    oracle = Oracle()
    assert engine.max_sequence_tokens == 65
    assert run(engine, [greedy(1, [9], 1)])[1].tokens == oracle.generate([9], 1)[0]
    assert run(engine, [greedy(2, range(64), 1)])[2].tokens == oracle.generate(range(64), 1)[0]
    assert run(engine, [greedy(3, [1], 64)])[3].tokens == oracle.generate([1], 64)[0]
    engine.close()


def test_what_cannot_be_served_is_refused_with_a_sentence() -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=4, max_context=2048))
    with pytest.raises(ContextLengthError, match="60 tokens and max_tokens is 6, but one request can have 65"):
        engine.add(greedy(1, range(60), 6))
    with pytest.raises(ContextLengthError, match="one request can have 65"):
        engine.add(greedy(1, range(70), 1))
    with pytest.raises(RequestError, match=r"outside of 0 \.\. 511"):
        engine.add(greedy(1, [3, 512], 1))
    with pytest.raises(RequestError, match=r"outside of 0 \.\. 511"):
        engine.add(greedy(1, [-1], 1))
    with pytest.raises(RequestError, match="32 bits"):
        engine.add(greedy(1, [1 << 40], 1))
    with pytest.raises(RequestError, match="empty"):
        engine.add(greedy(1, [], 1))
    assert run(engine, [greedy(1, [7], 3)])[1].reasons == ["length"]  # the id was never taken
    engine.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -1.0),
        ("top_k", -1),
        ("top_k", 1 << 40),
        ("max_tokens", -1),
        ("max_tokens", None),
        ("presence_penalty", 2.5),
        ("frequency_penalty", float("nan")),
        ("repetition_penalty", 0.0),
        ("logprobs", 21),
        ("prompt_logprobs", -1),
        ("seed", None),
        ("min_tokens", -1),
    ],
)
def test_parameters_out_of_range_are_refused(field: str, value: float | None) -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=4))
    request = greedy(1, [1], 1)
    with pytest.raises(RequestError, match=field):
        engine.add(dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, **{field: value})))
    engine.close()


def test_an_id_in_use_is_refused_and_free_again_after_its_end() -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=4))
    engine.add(greedy(1, [1], 5))
    with pytest.raises(RequestError, match="in use"):
        engine.add(greedy(1, [1], 5))
    Collector(engine).until_ended([1])
    assert run(engine, [greedy(1, [1], 2)])[1].reasons == ["length"]
    engine.close()


def test_the_queue_is_bounded_and_all_that_was_accepted_ends() -> None:
    engine = NativeEngine(scripted(step_us=200), EngineConfig(num_pages=100, max_batch=2, max_queue=5))
    collector, accepted, refused = Collector(engine), [], 0
    for request_id in range(500):
        try:
            engine.add(greedy(request_id, [request_id % 200], 20))
            accepted.append(request_id)
        except OverloadedError:
            refused += 1
        assert engine.stats().waiting <= 5
    assert refused > 0
    results = collector.until_ended(accepted)
    oracle = Oracle()
    assert all(results[i].tokens == oracle.generate([i % 200], 20)[0] for i in accepted)
    engine.add(greedy(9999, [1], 1))  # there is room again
    engine.close()


def test_a_draining_engine_finishes_what_it_has() -> None:
    requests = random_requests(20, seed=5)
    engine = NativeEngine(scripted(step_us=100, **SCRIPT), EngineConfig(num_pages=50, max_batch=4))
    for request in requests:
        engine.add(request)
    engine.drain()
    with pytest.raises(OverloadedError, match="shutting down"):
        engine.add(greedy(99, [1], 1))
    assert_as_computed(requests, Collector(engine).until_ended(range(20)))
    engine.close()


def test_close_ends_what_runs_and_what_waits() -> None:
    engine = NativeEngine(scripted(step_us=20_000), EngineConfig(num_pages=100, max_batch=2))
    for request_id in range(10):
        engine.add(greedy(request_id, [request_id], 1500))
    assert select.select([engine.event_fd], [], [], PATIENCE)[0]
    engine.close()
    engine.close()
    collector = Collector(engine)
    collector.poll()
    assert {i: r.reasons for i, r in collector.results.items()} == {i: ["abort"] for i in range(10)}
    stats = engine.stats()
    assert (stats.pages_free, stats.running, stats.waiting) == (100, 0, 0)
    assert not engine.alive
    with pytest.raises(EngineError, match="closed"):
        engine.add(greedy(11, [1], 1))
    engine.abort(0)


def test_adding_while_closing_never_loses_a_request() -> None:
    for attempt in range(30):
        engine = NativeEngine(scripted(), EngineConfig(num_pages=100, max_batch=4))
        accepted: list[int] = []

        def add_until_refused(engine: NativeEngine = engine, accepted: list[int] = accepted) -> None:
            for request_id in range(100_000):
                try:
                    engine.add(greedy(request_id, [1, 2, 3], 5))
                except OverloadedError:
                    continue
                except EngineError:
                    return
                accepted.append(request_id)

        thread = threading.Thread(target=add_until_refused)
        thread.start()
        for _ in range(attempt % 5):
            engine.stats()
        engine.close()
        thread.join()
        collector = Collector(engine)
        collector.poll()
        assert sorted(collector.results) == accepted
        assert all(len(result.reasons) == 1 for result in collector.results.values())


def test_an_idle_engine_burns_no_processor_time_and_looks_alive() -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=4))
    run(engine, [greedy(1, [1], 5)])
    Collector(engine).until_stats(lambda stats: stats.last_step_age == 0.0)
    begin = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - begin < 0.1
    assert engine.stats().last_step_age == 0.0
    engine.close()


def test_engines_come_and_go_without_a_trace() -> None:
    def count(what: str) -> int:
        return len(list(Path(f"/proc/self/{what}").iterdir()))

    def live_once() -> None:
        engine = NativeEngine(scripted(), EngineConfig(num_pages=4))
        run(engine, [greedy(1, [1], 2)])
        engine.close()

    live_once()
    gc.collect()  # what other tests left
    threads, descriptors = count("task"), count("fd")
    for _ in range(100):
        live_once()
    # The system's list of threads may hold one for a moment after it was joined.
    wait_until(lambda: count("task") <= threads and count("fd") <= descriptors)


def test_a_model_serves_one_engine_at_a_time() -> None:
    model = scripted()
    engine = NativeEngine(model, EngineConfig(num_pages=4))
    with pytest.raises(EngineError, match="another engine"):
        NativeEngine(model, EngineConfig(num_pages=4))
    engine.close()
    again = NativeEngine(model, EngineConfig(num_pages=4))
    assert run(again, [greedy(1, [1], 2)])[1].reasons == ["length"]
    again.close()


@pytest.mark.parametrize("field", ["num_pages", "max_batch", "max_step_tokens", "max_context", "max_queue"])
def test_sizes_that_cannot_be_are_refused(field: str) -> None:
    with pytest.raises(EngineError, match=field):
        NativeEngine(scripted(), dataclasses.replace(AMPLE, **{field: 0}))


def test_a_page_size_other_than_the_models_is_refused() -> None:
    with pytest.raises(EngineError, match="page_size is 8, but the model has pages of 16"):
        NativeEngine(scripted(), dataclasses.replace(AMPLE, page_size=8))


EXIT_SCRIPT = """
from cupola.engine.native import NativeEngine, scripted
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
engine = NativeEngine(scripted(step_us=1000), EngineConfig(num_pages=100))
for i in range(8):
    engine.add(GenerateRequest(i, (i,), SamplingParams(temperature=0.0, seed=0, max_tokens=900)))
{ending}
"""


@pytest.mark.parametrize("ending", ["", "import sys; sys.exit(0)", "del engine", "import os; os._exit(0)"])
def test_a_process_ends_without_close(ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT_SCRIPT.format(ending=ending)], timeout=300, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
