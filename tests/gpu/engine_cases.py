"""What the whole engine has to do on a GPU, whichever it is; modules of tests import these and say what it runs on.

Their fixtures are here too, but for `on_gpu`, the folder of the tiny model `checkpoint` compiled for that GPU.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from cupola.engine.native import NativeEngine, NativeModel, load_compiled
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams, ThinkingLimit
from native.native_driver import Collector, Result, run
from numerics.sequence import Sequences, read_manifest
from tiny_models import TINY_MODELS, TinyModel

TINY: TinyModel = TINY_MODELS[0]
TOLERANCE = 1e-3
PROMPT = TINY.token_ids()


@pytest.fixture(name="tolerance", scope="module")
def a_tolerance() -> float:
    return TOLERANCE


@pytest.fixture(name="checkpoint", scope="module")
def a_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny") / TINY.name
    TINY.write(folder)
    return str(folder)


@pytest.fixture(name="on_cpu", scope="module")
def compiled_for_the_processor(checkpoint: str) -> Path:
    return compiled_folder(checkpoint, "f32")


@pytest.fixture(name="model", scope="module")
def a_model(on_gpu: Path) -> NativeModel:
    return load_compiled(on_gpu, read_manifest(on_gpu))


@pytest.fixture(name="cpu_model", scope="module")
def a_cpu_model(on_cpu: Path) -> NativeModel:
    return load_compiled(on_cpu, read_manifest(on_cpu))


@pytest.fixture(name="engine")
def an_engine(model: NativeModel) -> Iterator[NativeEngine]:
    engine = NativeEngine(model, EngineConfig(num_pages=40), check_every_step=True)
    yield engine
    engine.close()


def requests(count: int = 12) -> list[GenerateRequest]:
    """Greedy and sampled ones in turn; every second one begins like the first."""
    rng = random.Random(1)
    return [
        GenerateRequest(
            id=i,
            token_ids=(*PROMPT[: 20 * (i % 2)], *[rng.randrange(TINY.vocab) for _ in range(rng.randint(1, 30))]),
            sampling=SamplingParams(temperature=float(i % 3 > 0), top_p=0.95, seed=i, max_tokens=40, logprobs=2),
        )
        for i in range(count)
    ]


def outcome(model: NativeModel, config: EngineConfig) -> dict[int, list[int]]:
    engine = NativeEngine(model, config, check_every_step=True)
    results = run(engine, requests())
    stats = engine.stats()
    engine.close()
    assert all(result.reasons == ["length"] for result in results.values()), results
    assert (stats.preemptions > 0) == (config.num_pages < 10)
    return {i: result.tokens for i, result in results.items()}


def test_logits_are_those_of_the_processors_library(on_gpu: Path, on_cpu: Path, tolerance: float) -> None:
    gpu, cpu = Sequences(on_gpu, count=2), Sequences(on_cpu, count=2)
    for chunk in (len(PROMPT), 7, 1):
        gpu.restart()
        cpu.restart()
        expected = cpu.run(PROMPT, chunk)
        assert np.abs(gpu.run(PROMPT, chunk) - expected).max() < tolerance
    # Several at once: a chunk of one beside single tokens of another.
    for sequences in (gpu, cpu):
        sequences.restart()
        sequences.step({0: PROMPT[:30]})
    steps = [{0: PROMPT[30:31], 1: PROMPT[:20]}, {0: PROMPT[31:32], 1: PROMPT[20:21]}]
    for step in steps:
        expected_rows, rows = cpu.step(step), gpu.step(step)
        for sequence in step:
            assert np.abs(rows[sequence] - expected_rows[sequence]).max() < tolerance


def test_tokens_are_those_of_the_processor_whatever_surrounds_a_request(
    model: NativeModel, cpu_model: NativeModel
) -> None:
    expected = outcome(cpu_model, EngineConfig(num_pages=100, max_batch=1))
    for config in (
        EngineConfig(num_pages=100),
        EngineConfig(num_pages=100, max_batch=3, max_step_tokens=7),
        EngineConfig(num_pages=9, admission="optimistic"),  # they preempt each other
    ):
        assert outcome(model, config) == expected


def test_what_requests_ask_of_their_logits_is_done_on_the_device(model: NativeModel, cpu_model: NativeModel) -> None:
    """Bias, penalties, lists of tokens, forced ones, and every log-probability: as the processor's sampler has them."""
    asked = [
        SamplingParams(
            presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.3, logit_bias={3: 2.0, 4: -5.0}
        ),
        SamplingParams(allowed_token_ids=tuple(range(0, TINY.vocab, 3)), prompt_logprobs=3),
        SamplingParams(temperature=0.0, min_tokens=5, prompt_logprobs=0, logit_bias={7: 30.0}),
        SamplingParams(top_k=20, top_p=0.8, min_p=0.01),
        SamplingParams(thinking_limit=ThinkingLimit((), 9, budget=5, begun=True), presence_penalty=1.0),
    ]

    def results(on: NativeModel) -> dict[int, Result]:
        engine = NativeEngine(on, EngineConfig(num_pages=60), check_every_step=True)
        requests = [
            GenerateRequest(
                id=i,
                token_ids=tuple(PROMPT[: 10 + i]),
                sampling=replace(sampling, seed=i, max_tokens=16, logprobs=i + 1),
                stop_token_ids=(7,) if sampling.min_tokens else (),
                bad_words=((11,), (5, 6)),
                logprobs_from=None if sampling.prompt_logprobs is None else 1,
            )
            for i, sampling in enumerate(asked)
        ]
        found = run(engine, requests)
        engine.close()
        return found

    found, expected = results(model), results(cpu_model)
    for i, result in expected.items():
        assert found[i].error is None
        assert found[i].tokens == result.tokens
        for ours, theirs in ((found[i].logprobs, result.logprobs), (found[i].prompt_logprobs, result.prompt_logprobs)):
            flat = [entry for position in ours for entry in position]
            wanted = [entry for position in theirs for entry in position]
            assert [(entry.token_id, entry.rank) for entry in flat] == [
                (entry.token_id, entry.rank) for entry in wanted
            ]
            np.testing.assert_allclose([e.logprob for e in flat], [e.logprob for e in wanted], atol=TOLERANCE)


def test_a_prompt_in_chunks_is_that_of_the_processor(model: NativeModel, cpu_model: NativeModel) -> None:
    """Steps that end no prompt have no results, so that nobody waits between them."""
    config = EngineConfig(num_pages=40, max_batch=1, max_step_tokens=7, prefix_cache=False)
    found = []
    for on in (model, cpu_model):
        with closing(NativeEngine(on, config, check_every_step=True)) as engine:
            found.append(run(engine, [greedy(1, PROMPT)])[1].tokens)
    assert found[0] == found[1]


def test_what_was_computed_is_found_again_and_copied(engine: NativeEngine) -> None:
    prompt = PROMPT[:40]
    first = run(engine, [greedy(1, prompt)])[1].tokens
    again = run(engine, [greedy(2, prompt), greedy(3, [*prompt[:37], 5, 6])])
    assert again[2].tokens == first
    # Two whole pages and what both end with of the third, which is copied before it is written to.
    assert engine.stats().prefix_hits == 39 + 37


def test_a_cancelled_request_gives_its_pages_back(engine: NativeEngine) -> None:
    collector = Collector(engine)
    engine.add(replace(greedy(1, PROMPT[:30]), sampling=SamplingParams(temperature=0.0, seed=0, max_tokens=200)))
    collector.until(lambda: 1 in collector.results)
    engine.abort(1)
    collector.until_ended([1])
    assert collector.results[1].reasons == ["abort"]
    collector.until_stats(lambda stats: stats.pages_free + stats.pages_cached >= 40)


def greedy(request_id: int, prompt: list[int]) -> GenerateRequest:
    sampling = SamplingParams(temperature=0.0, seed=0, max_tokens=12)
    return GenerateRequest(id=request_id, token_ids=tuple(prompt), sampling=sampling)
