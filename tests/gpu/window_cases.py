"""The engine with few pages for the layers with a window, on any GPU: what was given back and dealt out again must not
be seen. Compared with the processor's library, which has pages for everything. Modules of tests import these and have a
fixture `folders`: (compiled for the GPU, compiled for the processor).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cupola.engine.native import NativeEngine, NativeModel, load_compiled
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from family_models import VOCABULARY
from native.native_driver import run
from numerics.sequence import read_manifest

FEWEST = 2 * 3 + 2 + 1  # two sequences with a window of 16, a step of 32 rows, and one to copy from
MANY = EngineConfig(num_pages=200, num_window_pages=200, max_batch=2, max_step_tokens=32, max_context=256)
FEW = EngineConfig(num_pages=40, num_window_pages=FEWEST, max_batch=2, max_step_tokens=32, max_context=256)


@pytest.fixture(scope="module")
def model(folders: tuple[Path, Path]) -> NativeModel:
    return load_compiled(folders[0], read_manifest(folders[0]))


@pytest.fixture
def engine(model: NativeModel) -> Iterator[NativeEngine]:
    with closing(NativeEngine(model, FEW, check_every_step=True)) as engine:
        yield engine


@pytest.fixture(scope="module")
def on_cpu(folders: tuple[Path, Path]) -> NativeModel:
    return load_compiled(folders[1], read_manifest(folders[1]))


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.random.default_rng(seed).integers(3, VOCABULARY, length))


def request(number: int, token_ids: tuple[int, ...], length: int) -> GenerateRequest:
    sampling = SamplingParams(temperature=0.0, seed=number, max_tokens=length)
    return GenerateRequest(id=number, token_ids=token_ids, sampling=sampling)


def expected(model: NativeModel, requests: list[GenerateRequest]) -> dict[int, list[int]]:
    with closing(NativeEngine(model, MANY, check_every_step=True)) as engine:
        return {number: result.tokens for number, result in run(engine, requests).items()}


def test_texts_far_longer_than_the_window(engine: NativeEngine, model: NativeModel, on_cpu: NativeModel) -> None:
    requests = [request(i, prompt(i, 20 + 25 * i), 100) for i in range(1, 5)]
    results = run(engine, requests)
    assert model.step_counts()[0].replayed > 100  # most of them
    assert all(result.reasons == ["length"] for result in results.values()), results
    assert {i: result.tokens for i, result in results.items()} == expected(on_cpu, requests)


def test_pages_of_both_kinds_of_layers_are_found_and_copied(engine: NativeEngine, on_cpu: NativeModel) -> None:
    first = prompt(9, 70)
    requests = [request(1, first, 16), request(2, first, 6), request(3, (*first[:67], 5, 6), 6)]
    found = {}
    for one in requests:
        found |= {number: result.tokens for number, result in run(engine, [one]).items()}
    assert found == expected(on_cpu, requests)
    assert engine.stats().prefix_hits == 69 + 67  # four whole pages each, and what agrees of the fifth is copied
