"""Tiny models of every family against transformers (`tests/goldens/families`).

pytest tests/numerics/test_families.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from family_models import FAMILIES, PREFILL, golden_logits, golden_shapes, token_ids, write
from numerics.sequence import Sequences

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Path]]]:
    """All families, compiled as many at a time as there are processors."""
    checkpoints = tmp_path_factory.mktemp("families")

    def compiled(family: str) -> Path:
        write(family, golden_shapes(family), checkpoints / family)
        return compiled_folder(str(checkpoints / family), "f32")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {family: pool.submit(compiled, family) for family in FAMILIES}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sequences(folders: Mapping[str, Future[Path]], family: str) -> Sequences:
    return Sequences(folders[family].result(), count=2)


@pytest.fixture(scope="module")
def expected(family: str) -> np.ndarray:
    return golden_logits(family)


def test_prefill_and_decode_are_those_of_transformers(sequences: Sequences, family: str, expected: np.ndarray) -> None:
    ids = token_ids(family)
    sequences.restart()
    found = np.concatenate([sequences.run(ids[:PREFILL], PREFILL), sequences.run(ids[PREFILL:], 1)])
    assert np.abs(found - expected).max() < TOLERANCE
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_chunks_and_company_change_nothing(sequences: Sequences, family: str, expected: np.ndarray) -> None:
    ids = token_ids(family)
    sequences.restart()
    first = sequences.step({1: ids[:33]})[1]
    rows = [sequences.step({0: ids[at : at + 13], 1: ids[33 + at // 13 : 34 + at // 13]}) for at in range(0, 52, 13)]
    found = np.concatenate([row[0] for row in rows])
    other = np.concatenate([first, *(row[1] for row in rows)])
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(other - expected[: len(other)]).max() < TOLERANCE
