"""The whole engine on a model compiled for WebGPU, on the first adapter: lavapipe where there is no GPU.

What it computes is compared with the library for the processor; what surrounds a request must not change it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from cupola.engine import native_model
from cupola.engine.native import NativeEngine, NativeModel, load_compiled
from cupola.engine.native_webgpu import WebGpuProfile, webgpu_adapters
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from cupola.errors import ModelError
from native.native_driver import Collector, Result, run
from numerics.sequence import Sequences, read_manifest
from tiny_models import TINY_MODELS, TinyModel

CONFIG = Path(__file__).resolve().parents[2] / "compile_configs" / "webgpu.toml"
TINY: TinyModel = TINY_MODELS[0]
TOLERANCE = 1e-3
PROMPT = TINY.token_ids()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny") / TINY.name
    TINY.write(folder)
    return str(folder)


@pytest.fixture(scope="module")
def on_gpu(checkpoint: str) -> Path:
    return compiled_folder(checkpoint, "f32", CONFIG)


@pytest.fixture(scope="module")
def on_cpu(checkpoint: str) -> Path:
    return compiled_folder(checkpoint, "f32")


@pytest.fixture(scope="module")
def model(on_gpu: Path) -> NativeModel:
    return load_compiled(on_gpu, read_manifest(on_gpu))


@pytest.fixture(scope="module")
def cpu_model(on_cpu: Path) -> NativeModel:
    return load_compiled(on_cpu, read_manifest(on_cpu))


@pytest.fixture
def engine(model: NativeModel) -> Iterator[NativeEngine]:
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


def test_logits_are_those_of_the_processors_library(on_gpu: Path, on_cpu: Path) -> None:
    gpu, cpu = Sequences(on_gpu, count=2), Sequences(on_cpu, count=2)
    for chunk in (len(PROMPT), 7, 1):
        gpu.restart()
        cpu.restart()
        expected = cpu.run(PROMPT, chunk)
        assert np.abs(gpu.run(PROMPT, chunk) - expected).max() < TOLERANCE
    # Several at once: a chunk of one beside single tokens of another.
    for sequences in (gpu, cpu):
        sequences.restart()
        sequences.step({0: PROMPT[:30]})
    steps = [{0: PROMPT[30:31], 1: PROMPT[:20]}, {0: PROMPT[31:32], 1: PROMPT[20:21]}]
    for step in steps:
        expected_rows, rows = cpu.step(step), gpu.step(step)
        for sequence in step:
            assert np.abs(rows[sequence] - expected_rows[sequence]).max() < TOLERANCE


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
    """Bias, penalties, lists of tokens, and every log-probability: as the processor's sampler has them."""
    asked = [
        SamplingParams(
            presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.3, logit_bias={3: 2.0, 4: -5.0}
        ),
        SamplingParams(allowed_token_ids=tuple(range(0, TINY.vocab, 3)), prompt_logprobs=3),
        SamplingParams(temperature=0.0, min_tokens=5, prompt_logprobs=0, logit_bias={7: 30.0}),
        SamplingParams(top_k=20, top_p=0.8, min_p=0.01),
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


def test_a_weight_that_the_device_cannot_hold_is_refused_by_name(on_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(webgpu_adapters()[0], max_binding_bytes=1000)
    monkeypatch.setattr(native_model, "webgpu_adapters", lambda: (small,))
    with pytest.raises(ModelError, match=r"the weight `.*` has \d+ bytes, but a tensor of .* has at most 1000"):
        load_compiled(on_gpu, read_manifest(on_gpu))


def test_kernels_can_be_measured(engine: NativeEngine) -> None:
    with WebGpuProfile() as profile:
        run(engine, [greedy(1, PROMPT[:10])])
    assert sum(time.calls for time in profile.times) > 20
    assert all(time.microseconds > 0 for time in profile.times)


def greedy(request_id: int, prompt: list[int]) -> GenerateRequest:
    sampling = SamplingParams(temperature=0.0, seed=0, max_tokens=12)
    return GenerateRequest(id=request_id, token_ids=tuple(prompt), sampling=sampling)


LOST = """
import sys
from pathlib import Path
from cupola.engine.native import NativeEngine, load_compiled
from cupola.engine.native_library import native
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from native.native_driver import Collector
from numerics.sequence import read_manifest

folder = Path(sys.argv[1])
engine = NativeEngine(load_compiled(folder, read_manifest(folder)), EngineConfig(num_pages=40))
collector = Collector(engine)
sampling = SamplingParams(temperature=0.0, seed=0, max_tokens=500)
engine.add(GenerateRequest(id=1, token_ids=(3, 4, 5), sampling=sampling))
collector.until(lambda: 1 in collector.results)
native("webgpu.lose")(0)
print(collector.until_ended([1])[1].reasons, collector.results[1].error)
engine.close()
"""


def test_a_lost_device_ends_the_requests_with_its_name_and_not_the_process(on_gpu: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", LOST, str(on_gpu)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.startswith("['error'] ")
    assert "the WebGPU device is lost" in result.stdout
