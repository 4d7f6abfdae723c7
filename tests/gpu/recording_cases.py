"""Steps that are recorded once and replayed, on any GPU: tokens are those of steps that are called, whatever grows,
comes, goes or fails meanwhile; and recordings are really used. Modules of tests import these and have a fixture
`folder`, the tiny model compiled for the GPU.

What decides when a step is recorded has tests of its own in tests/native/test_step_recordings.py.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi

from cupola.engine.native import NativeEngine, NativeModel, load_compiled, native
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from native.native_driver import run
from numerics.sequence import read_manifest
from tiny_models import TINY_MODELS, TinyModel

TINY: TinyModel = TINY_MODELS[0]
NAMES = ("ids", "positions", "slots", "q_indptr", "page_indptr", "page_ids", "kv_len", "out_rows")
ROOM = 64 * 16  # tokens whose pages fill the least room for page numbers


@pytest.fixture(name="model")
def a_recorded_model(folder: Path) -> NativeModel:
    return load_compiled(folder, read_manifest(folder))


@pytest.fixture(scope="module")
def called(folder: Path) -> NativeModel:
    """The same model without recordings."""
    return load_compiled(folder, read_manifest(folder), record_steps=False)


def tokens(model: NativeModel, config: EngineConfig, requests: Sequence[GenerateRequest]) -> dict[int, list[int]]:
    with closing(NativeEngine(model, config, check_every_step=True)) as engine:
        results = run(engine, requests)
    assert all(result.error is None for result in results.values()), results
    return {i: result.tokens for i, result in results.items()}


def request(number: int, prompt: int, length: int, temperature: float = 0.0) -> GenerateRequest:
    rng = random.Random(number)
    sampling = SamplingParams(temperature=temperature, top_p=0.9, top_k=20, seed=number, max_tokens=length)
    return GenerateRequest(
        id=number, token_ids=tuple(rng.randrange(TINY.vocab) for _ in range(prompt)), sampling=sampling
    )


def test_contexts_that_outgrow_their_room_and_batches_that_change(model: NativeModel, called: NativeModel) -> None:
    """Seven contexts pass the room for page numbers together; requests end one after the other, and others follow."""
    requests = [request(i, ROOM // 8 + 3 * i, 4 + 5 * i, temperature=float(i % 2)) for i in range(10)]
    config = EngineConfig(num_pages=200, max_batch=7, prefix_cache=False)
    assert tokens(model, config, requests) == tokens(called, config, requests)
    decodes, samples = model.step_counts()
    assert decodes.recorded > 7  # each size of a batch, and some in two rooms
    assert decodes.replayed > decodes.called
    assert samples.replayed > samples.recorded > 0


def test_requests_that_take_each_others_pages(model: NativeModel, called: NativeModel) -> None:
    requests = [request(i, 10 + i, 50) for i in range(8)]
    expected = tokens(called, EngineConfig(num_pages=100), requests)
    config = EngineConfig(num_pages=9, admission="optimistic")
    with closing(NativeEngine(model, config, check_every_step=True)) as engine:
        results = run(engine, requests)
        assert engine.stats().preemptions > 0
    assert {i: result.tokens for i, result in results.items()} == expected
    assert model.step_counts()[0].replayed > 0


def test_other_pages_are_other_recordings(model: NativeModel, called: NativeModel) -> None:
    """What was recorded with the pages of one engine is not replayed with those of the next."""
    for num_pages in (20, 60, 20):
        before = model.step_counts()[0]
        config = EngineConfig(num_pages=num_pages)
        assert tokens(model, config, [request(1, 9, 20)]) == tokens(called, config, [request(1, 9, 20)])
        after = model.step_counts()[0]
        assert (after.called - before.called, after.recorded - before.recorded) == (1, 1)
        assert after.replayed - before.replayed == 20 - 1 - 1


def test_a_large_step_moves_the_arguments_of_the_others(model: NativeModel, called: NativeModel) -> None:
    """Its arguments need more room than there was, so that the addresses of earlier recordings are gone."""
    requests = [request(1, 5, 10), request(2, 700, 10), request(3, 5, 10)]
    config = EngineConfig(num_pages=100)
    with closing(NativeEngine(model, config)) as engine:
        found = {number: result.tokens for one in requests for number, result in run(engine, [one]).items()}
    assert found == tokens(called, config, requests)
    assert model.step_counts()[0].recorded == 2  # the same step twice, with its arguments in two places


def test_where_recording_fails_steps_are_called_and_somebody_is_told(
    model: NativeModel, called: NativeModel, capfd: pytest.CaptureFixture[str]
) -> None:
    native("testing.set_failpoints")("record=throw*1")
    try:
        found = tokens(model, EngineConfig(num_pages=40), [request(1, 5, 12)])
    finally:
        native("testing.set_failpoints")("")
    assert found == tokens(called, EngineConfig(num_pages=40), [request(1, 5, 12)])
    decodes, samples = model.step_counts()
    assert decodes.recorded == 0
    assert samples.recorded > 0  # by a recorder of its own
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cupola: ")]
    assert len(told) == 1
    assert "not recorded any more" in told[0]


def decode(model: NativeModel, position: int) -> np.ndarray:
    """One token of one sequence, whose page is the first."""
    arguments = ([5], [position], [position], [0, 1], [0, 1], [0], [position + 1], [0])
    return model.forward(**{name: np.array(values) for name, values in zip(NAMES, arguments, strict=True)})


def test_memory_of_recordings_stays_when_tvm_gives_back_what_nobody_uses(
    model: NativeModel, called: NativeModel
) -> None:
    for one in (model, called):
        one.alloc_kv_cache(1)
    for position in range(6):
        if position == 3:
            tvm_ffi.get_global_func("vm.builtin.memory_manager.clear")()
        np.testing.assert_array_equal(decode(model, position), decode(called, position))
    assert model.step_counts()[0].replayed == 5
