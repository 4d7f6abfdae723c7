"""Requests of a q4 model on CUDA: replayed graphs compute what calls do, and each of their kernels runs each time."""

from __future__ import annotations

import ctypes
from contextlib import closing
from pathlib import Path

import pytest
from cuda_stand_in import folder_with_ptx

from cupola.engine.native import NativeEngine, NativeModel, load_compiled
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from native.native_driver import run
from numerics.sequence import read_manifest
from tiny_models import TINY_MODELS

PROMPT = TINY_MODELS[0].token_ids()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = tmp_path_factory.mktemp("tiny")
    TINY_MODELS[0].write(checkpoint)
    return folder_with_ptx(str(checkpoint), "q4")


def executed() -> dict[str, int]:
    """How often each kernel ran in this process."""
    driver = ctypes.CDLL("libcuda.so.1")
    driver.stand_in_executed.restype = ctypes.c_char_p
    lines = (line.split() for line in driver.stand_in_executed().decode().splitlines())
    return {name: int(times) for name, times in lines}


def tokens_one_by_one(model: NativeModel) -> list[list[int]]:
    """Each request alone, so that nothing depends on who comes first: greedy, sampled, and one that shares a prefix."""
    prompts = (PROMPT[:30], PROMPT[:5], [*PROMPT[:25], 7, 8])
    found = []
    with closing(NativeEngine(model, EngineConfig(num_pages=40), check_every_step=True)) as engine:
        for i, prompt in enumerate(prompts):
            sampling = SamplingParams(temperature=float(i % 2), top_p=0.9, seed=i, max_tokens=20)
            result = run(engine, [GenerateRequest(id=i, token_ids=tuple(prompt), sampling=sampling)])[i]
            assert result.error is None
            found.append(result.tokens)
        assert engine.stats().prefix_hits > 0
    return found


def test_tokens_of_replayed_graphs_are_those_of_calls(folder: Path) -> None:
    manifest = read_manifest(folder)
    recorded, called = (load_compiled(folder, manifest, record_steps=record) for record in (True, False))
    before = executed()
    expected = tokens_one_by_one(called)
    between = executed()
    assert tokens_one_by_one(recorded) == expected
    after = executed()
    # A recorded kernel runs as often as a called one: being recorded is no launch, and each replay is one.
    assert all(after[name] - between[name] == between[name] - before.get(name, 0) for name in after)
    decodes, samples = recorded.step_counts()
    assert (decodes.called, decodes.recorded) == (1, 1)  # the shape of the first is that of all later ones
    assert decodes.replayed >= sum(map(len, expected)) - len(expected) - 1
    assert samples.replayed > samples.called
