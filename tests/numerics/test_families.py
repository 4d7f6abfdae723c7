"""Tiny models of every family against transformers (`tests/goldens/families`).

`make test` has one of each kind, `make test-families` all. A single one: pytest -m '' -k 'qwen3 and not moe' FILE
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from family_models import FAMILIES, PREFILL, golden_logits, golden_shapes, token_ids, write
from numerics.sequence import Sequences
from selected_tests import made_ahead, selected

TOLERANCE = 1e-3
ROUNDING = 1e-4
# Between them: every placement of norms, every kind of norm, of positions, of windows, of experts, of attention.
EACH_KIND = frozenset(
    {
        "llama-yarn",
        "gemma2",
        "gemma3",
        "phi3-longrope",
        "cohere2",
        "gpt2",
        "gpt-neox",
        "qwen2-moe",
        "gpt-oss",
        "deepseek3",
    }
)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Path]]]:
    """The families that are tested, compiled."""
    checkpoints = tmp_path_factory.mktemp("families")

    def compiled(family: str) -> Path:
        write(family, golden_shapes(family), checkpoints / family)
        return compiled_folder(str(checkpoints / family), "f32")

    with made_ahead(selected(request, "family"), compiled) as made:
        yield made


@pytest.fixture(
    scope="module",
    params=[name if name in EACH_KIND else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES],
)
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
    # Which of two logits is the greater one has to be the same where rounding, another on each processor, leaves it so.
    first, second = np.sort(expected, axis=1)[:, ::-1][:, :2].T
    clear = first - second > ROUNDING
    assert clear.sum() >= len(ids) - 1
    np.testing.assert_array_equal(found.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])


def test_chunks_and_company_change_nothing(sequences: Sequences, family: str, expected: np.ndarray) -> None:
    ids = token_ids(family)
    sequences.restart()
    first = sequences.step({1: ids[:33]})[1]
    rows = [sequences.step({0: ids[at : at + 13], 1: ids[33 + at // 13 : 34 + at // 13]}) for at in range(0, 52, 13)]
    found = np.concatenate([row[0] for row in rows])
    other = np.concatenate([first, *(row[1] for row in rows)])
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(other - expected[: len(other)]).max() < TOLERANCE
