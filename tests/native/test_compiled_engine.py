"""The engine on the real compiled model: bit for bit the same tokens, whatever happens around a request."""

from __future__ import annotations

import contextlib
import random
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from native_driver import run, wait_until

from cupola.engine.native import NativeEngine, NativeModel, load_compiled
from cupola.engine.request import Delta, EngineConfig, GenerateRequest, SamplingParams
from cupola.errors import IncompatibleError, ModelError
from cupola.manifest import Manifest

pytestmark = pytest.mark.model

MIN_TOKENS, MAX_TOKENS = 30, 45  # long against the prompts, so that a small pool runs short


def read_manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "model.json").read_text())


@pytest.fixture(scope="module")
def model(compiled_smollm2: Path) -> NativeModel:
    return load_compiled(compiled_smollm2, read_manifest(compiled_smollm2))


def random_requests(model: NativeModel) -> list[GenerateRequest]:
    """Greedy and sampled ones in turn."""
    rng = random.Random(1)
    return [
        GenerateRequest(
            id=i,
            token_ids=tuple(rng.randrange(model.vocab_size) for _ in range(rng.randint(1, 30))),
            sampling=SamplingParams(
                temperature=0.0 if i % 2 else 1.0, top_p=0.95, seed=i, max_tokens=rng.randint(MIN_TOKENS, MAX_TOKENS)
            ),
        )
        for i in range(12)
    ]


def tokens_of(model: NativeModel, config: EngineConfig) -> tuple[dict[int, list[int]], int]:
    """The tokens of every request, and how often one was preempted."""
    engine = NativeEngine(model, config, check_every_step=True)
    results = run(engine, random_requests(model))
    preemptions = engine.stats().preemptions
    engine.close()
    assert all(result.reasons == ["length"] for result in results.values())
    return {i: result.tokens for i, result in results.items()}, preemptions


@pytest.fixture(scope="module")
def alone(model: NativeModel) -> dict[int, list[int]]:
    """The tokens of every request when it runs by itself."""
    return tokens_of(model, EngineConfig(num_pages=100, max_batch=1))[0]


@pytest.mark.parametrize(
    ("num_pages", "max_batch", "max_step_tokens"), [(100, 32, 512), (100, 7, 19), (100, 5, 5), (9, 32, 512)]
)
def test_tokens_do_not_depend_on_batch_chunks_or_pages(
    model: NativeModel, alone: dict[int, list[int]], num_pages: int, max_batch: int, max_step_tokens: int
) -> None:
    config = EngineConfig(
        num_pages=num_pages, max_batch=max_batch, max_step_tokens=max_step_tokens, admission="optimistic"
    )
    tokens, preemptions = tokens_of(model, config)
    assert tokens == alone
    assert (preemptions > 0) == (num_pages == 9)


def test_tokens_and_log_probabilities_do_not_depend_on_what_is_cached(model: NativeModel) -> None:
    rng = random.Random(2)
    prefix = [rng.randrange(model.vocab_size) for _ in range(70)]  # four pages and a part of the fifth
    requests = [
        GenerateRequest(
            id=i,
            token_ids=(*prefix[: 30 + 8 * i], *[rng.randrange(model.vocab_size) for _ in range(i % 3 + 1)]),
            sampling=SamplingParams(temperature=0.0 if i % 2 else 1.0, seed=i, max_tokens=12, logprobs=5),
        )
        for i in range(6)
    ]

    def outcome(config: EngineConfig, rounds: int) -> list[list[Delta]]:
        engine = NativeEngine(model, config, check_every_step=True)
        for _ in range(rounds):
            deltas: dict[int, list[Delta]] = {request.id: [] for request in requests}
            for request in requests:
                engine.add(request)
            while not all(part and part[-1].finish_reason for part in deltas.values()):
                select.select([engine.event_fd], [], [], 1)
                for delta in engine.take():
                    deltas[delta.request_id].append(delta._replace(num_cached=None))
        hits = engine.stats().prefix_hits
        engine.close()
        assert (hits > 0) == config.prefix_cache
        return [deltas[request.id] for request in requests]

    expected = outcome(EngineConfig(num_pages=100, max_batch=1, prefix_cache=False), rounds=1)
    assert outcome(EngineConfig(num_pages=100), rounds=1) == expected  # they share while they run
    assert outcome(EngineConfig(num_pages=100), rounds=2) == expected  # and find all that was computed before
    assert outcome(EngineConfig(num_pages=12, admission="optimistic"), rounds=3) == expected


def num_engine_threads() -> int:
    """The threads of this process that bear a name of the engine's; one that ended may be there for a moment more."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            names.append((task / "comm").read_text().strip())
    return sum(name in ("cupola-engine", "cupola-worker") for name in names)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_the_library_runs_on_the_threads_asked_for(
    model: NativeModel, alone: dict[int, list[int]], num_threads: int
) -> None:
    wait_until(lambda: num_engine_threads() == 0)
    engine = NativeEngine(model, EngineConfig(num_pages=100, max_batch=32, num_threads=num_threads))
    results = run(engine, random_requests(model))
    assert num_engine_threads() == num_threads, "the engine thread counts as one of them"
    engine.close()
    assert {i: result.tokens for i, result in results.items()} == alone


def test_tokens_do_not_depend_on_how_threads_wait_or_who_else_works(
    model: NativeModel, alone: dict[int, list[int]]
) -> None:
    config = EngineConfig(num_pages=100, max_batch=32, num_threads=3, bind_threads=True, spin_us=0)
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as busy:
        try:
            tokens, _ = tokens_of(model, config)
        finally:
            busy.kill()
    assert tokens == alone


def test_an_idle_engine_burns_no_cpu(model: NativeModel) -> None:
    engine = NativeEngine(model, EngineConfig(num_pages=100, num_threads=3))
    run(engine, random_requests(model)[:1])
    time.sleep(0.05)  # longer than anybody spins
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1, "three threads that spin would use the time three times"
    engine.close()


def test_the_limits_of_the_library_bound_the_engine(model: NativeModel, compiled_smollm2: Path) -> None:
    limits = read_manifest(compiled_smollm2).limits
    config = EngineConfig(num_pages=200, max_batch=10 * limits.max_batch, max_step_tokens=10 * limits.max_step_tokens)
    engine = NativeEngine(model, config)
    prompt = tuple(range(2 * limits.max_step_tokens))
    request = GenerateRequest(1, prompt, SamplingParams(temperature=0.0, seed=0, max_tokens=1))
    assert run(engine, [request])[1].reasons == ["length"]
    assert engine.stats().steps == 2
    engine.close()


def test_weights_are_mapped_not_read(model: NativeModel, compiled_smollm2: Path) -> None:
    assert model.vocab_size > 0
    maps = Path("/proc/self/maps").read_text()
    assert str(compiled_smollm2 / read_manifest(compiled_smollm2).weights[0].file) in maps


def test_a_model_of_other_versions_is_refused(compiled_smollm2: Path) -> None:
    manifest = read_manifest(compiled_smollm2)
    other = manifest.model_copy(update={"stamp": manifest.stamp.model_copy(update={"tvm": "0.1"})})
    with pytest.raises(IncompatibleError, match=r"compiled with apache-tvm 0\.1"):
        load_compiled(compiled_smollm2, other)


def test_a_folder_that_is_not_as_its_manifest_says_is_refused(compiled_smollm2: Path, tmp_path: Path) -> None:
    manifest = read_manifest(compiled_smollm2)
    weight = manifest.weights[0]
    wrong = weight.model_copy(update={"shape": (*weight.shape, 2)})
    with pytest.raises(ModelError, match=weight.name):
        load_compiled(compiled_smollm2, manifest.model_copy(update={"weights": (wrong, *manifest.weights[1:])}))
    (tmp_path / weight.file).write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00junk!")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_compiled(tmp_path, manifest)
    (tmp_path / "lib.so").write_bytes(b"no library")
    with pytest.raises(ModelError, match=r"lib\.so cannot be loaded"):
        load_compiled(tmp_path, manifest.model_copy(update={"weights": ()}))


def test_forward_by_hand(model: NativeModel) -> None:
    model.alloc_kv_cache(4)
    ids = np.array([5, 6, 7])
    rows = np.arange(3)
    logits = model.forward(
        ids=ids,
        positions=rows,
        slots=rows,
        q_indptr=np.array([0, 3]),
        page_indptr=np.array([0, 1]),
        page_ids=np.array([0]),
        kv_len=np.array([3]),
        out_rows=rows,
    )
    assert logits.shape == (3, model.vocab_size)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
