"""The runner of encoders, on the scripted one: packing, fairness, errors, aborts, its end."""

from __future__ import annotations

import select
from array import array
from collections.abc import Iterator

import pytest

from cupola.engine.native_encoder import EmbedResult, NativeEmbedder, scripted_encoder
from cupola.engine.request import EngineConfig
from cupola.errors import EngineError, OverloadedError, RequestError

POISON, FAIL = 500, 501
PATIENCE = 100.0  # seconds: far more than anything here takes, also on a slow machine


def expected(text: list[int], types: list[int] | None = None) -> list[float]:
    """The rule of cpp/model/scripted_encoder.h."""
    h = 2166136261
    for token, kind in zip(text, types or [0] * len(text), strict=True):
        h = ((h ^ token) * 16777619 + kind) & 0xFFFFFFFF
    return [1.0 + (h >> (4 * i) & 15) for i in range(8)]


def start(max_queue: int = 100, **script: int) -> NativeEmbedder:
    encoder = scripted_encoder(poison_id=POISON, fail_id=FAIL, **script)
    return NativeEmbedder(encoder, EngineConfig(num_pages=0, max_context=64, max_queue=max_queue, num_threads=1))


@pytest.fixture
def embedder() -> Iterator[NativeEmbedder]:
    opened = start()
    yield opened
    opened.close()


def wait(embedder: NativeEmbedder, count: int) -> list[EmbedResult]:
    found: list[EmbedResult] = []
    while len(found) < count:
        assert select.select([embedder.event_fd], [], [], PATIENCE)[0], f"only {len(found)} of {count} jobs ended"
        found += embedder.take()
    return found


def rows(result: EmbedResult) -> list[list[float]]:
    values = array("f")
    values.frombytes(result.vectors)
    return [values[i : i + 8].tolist() for i in range(0, len(values), 8)]


def test_every_text_of_every_job_gets_its_vector(embedder: NativeEmbedder) -> None:
    jobs = {job: [[job, *range(n)] for n in range(1 + 7 * job % 40)] for job in range(1, 30)}
    for job, texts in jobs.items():
        embedder.add(job, texts)
    found = {result.job_id: result for result in wait(embedder, len(jobs))}
    for job, texts in jobs.items():
        assert rows(found[job]) == [expected(text) for text in texts]
    stats = embedder.stats()
    assert (stats.finished, stats.running, stats.waiting) == (len(jobs), 0, 0)
    assert stats.prompt_tokens == sum(len(text) for texts in jobs.values() for text in texts)


def test_tokens_have_types(embedder: NativeEmbedder) -> None:
    texts = [[1, 2, 3], [4, 5]]
    types = [[0, 0, 1], [1, 0]]
    embedder.add(1, texts, types)
    embedder.add(2, texts)
    found = {result.job_id: rows(result) for result in wait(embedder, 2)}
    assert found[1] == [expected(text, kinds) for text, kinds in zip(texts, types, strict=True)]
    assert found[2] == [expected(text) for text in texts]
    with pytest.raises(RequestError):
        embedder.add(3, texts, [[0, 0, 2], [0, 0]])
    with pytest.raises(ValueError, match="5 tokens, but 1 types"):
        embedder.add(3, texts, [[0]])


def test_a_step_is_full_before_the_next_begins() -> None:
    embedder = start(max_step_tokens=128, max_batch=16)
    embedder.add(1, [[1] * 32] * 16)  # 512 tokens: four steps
    embedder.add(2, [[1]] * 40)  # with no more than 16 texts in a step
    wait(embedder, 2)
    assert embedder.stats().steps <= 4 + 3
    embedder.close()


def test_a_small_job_passes_a_large_one() -> None:
    embedder = start(step_us=20_000)
    embedder.add(1, [[7] * 64] * 4000)  # more than half a minute
    embedder.add(2, [[8]])
    assert [result.job_id for result in wait(embedder, 1)] == [2]
    embedder.abort(1)
    assert [(result.job_id, result.aborted) for result in wait(embedder, 1)] == [(1, True)]
    embedder.close()


@pytest.mark.parametrize(("token", "words"), [(POISON, "not finite"), (FAIL, "a token that fails")])
def test_an_error_ends_one_job(embedder: NativeEmbedder, token: int, words: str) -> None:
    embedder.add(1, [[1, 2]])
    embedder.add(2, [[1], [3, token], [4]])
    embedder.add(3, [[5]])
    found = {result.job_id: result for result in wait(embedder, 3)}
    assert words in str(found[2].error)
    assert rows(found[1]) == [expected([1, 2])]
    assert rows(found[3]) == [expected([5])]
    assert embedder.alive


def test_an_encoder_that_keeps_failing_is_given_up(embedder: NativeEmbedder) -> None:
    for job in range(1, 4):
        embedder.add(job, [[FAIL]])
        assert wait(embedder, 1)[0].error
    assert not embedder.alive
    assert "fails" in str(embedder.failure)
    with pytest.raises(EngineError, match="fails"):
        embedder.add(9, [[1]])


def test_what_is_refused(embedder: NativeEmbedder) -> None:
    for texts in ([[]], [[1] * 65], [[512]], [[-1]], [[1 << 40]]):
        with pytest.raises(RequestError):
            embedder.add(1, texts)
    embedder.drain()
    with pytest.raises(OverloadedError, match="shutting down"):
        embedder.add(1, [[1]])


def test_aborts_and_a_full_queue() -> None:
    embedder = start(max_queue=2, step_us=20_000)
    embedder.add(1, [[1] * 64] * 1000)
    embedder.add(2, [[1] * 64] * 1000)
    with pytest.raises(OverloadedError, match="2 requests"):
        embedder.add(3, [[1]])
    embedder.abort(1)
    embedder.abort(77)
    assert [(result.job_id, result.aborted) for result in wait(embedder, 1)] == [(1, True)]
    embedder.close()
    assert [(result.job_id, result.aborted) for result in embedder.take()] == [(2, True)]
    with pytest.raises(EngineError, match="closed"):
        embedder.add(4, [[1]])


def test_an_encoder_serves_one_runner() -> None:
    encoder = scripted_encoder()
    config = EngineConfig(num_pages=0, max_context=64, num_threads=1)
    first = NativeEmbedder(encoder, config)
    with pytest.raises(EngineError, match="already serves"):
        NativeEmbedder(encoder, config)
    first.close()
    NativeEmbedder(encoder, config).close()
