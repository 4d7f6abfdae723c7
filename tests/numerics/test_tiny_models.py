"""Tiny random models against transformers (`tests/goldens/tiny_logits.npz`), and against themselves bit for bit.

pytest tests/numerics/test_tiny_models.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from numerics.sequence import Sequences
from tiny_models import DECODE, PREFILL, TINY_MODELS, TinyModel

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
TOLERANCE = 1e-3


@pytest.fixture(scope="module", params=TINY_MODELS, ids=lambda tiny: tiny.name)
def tiny(request: pytest.FixtureRequest) -> TinyModel:
    return request.param


@pytest.fixture(scope="module")
def folder(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = tmp_path_factory.mktemp("tiny") / tiny.name
    tiny.write(checkpoint)
    return compiled_folder(str(checkpoint), "f32")


@pytest.fixture(scope="module")
def sequences(folder: Path) -> Sequences:
    return Sequences(folder, count=3)


def whole(sequences: Sequences, tiny: TinyModel) -> np.ndarray:
    """Logits of the prompt in one step and of every further token in a step of its own."""
    ids = tiny.token_ids()
    sequences.restart()
    prefill = sequences.run(ids[:PREFILL], PREFILL)
    return np.concatenate([prefill, sequences.run(ids[PREFILL:], 1)])


def test_logits_are_those_of_transformers(sequences: Sequences, tiny: TinyModel) -> None:
    expected = np.load(GOLDENS / "tiny_logits.npz")[tiny.name]
    difference = np.abs(whole(sequences, tiny) - expected)
    assert difference.shape == (PREFILL + DECODE, tiny.vocab)
    assert difference[:PREFILL].max() < TOLERANCE
    assert difference[PREFILL:].max() < TOLERANCE


@pytest.mark.parametrize("chunk", [1, 7, 16, 33])
def test_chunks_change_no_bit(sequences: Sequences, tiny: TinyModel, chunk: int) -> None:
    expected = whole(sequences, tiny)
    sequences.restart()
    np.testing.assert_array_equal(sequences.run(tiny.token_ids(), chunk), expected)


def test_company_changes_no_bit(sequences: Sequences, tiny: TinyModel) -> None:
    expected = whole(sequences, tiny)
    ids = tiny.token_ids()
    sequences.restart()
    # A long prompt, a decode in the middle of its text, and a short prompt share every step.
    sequences.step({1: ids[:40]})
    rows = [
        sequences.step({0: ids[at : at + 20], 1: ids[40 + at // 20 : 41 + at // 20], 2: ids[at : at + 3]})
        for at in range(0, len(ids), 20)
    ]
    np.testing.assert_array_equal(np.concatenate([row[0] for row in rows]), expected)
    np.testing.assert_array_equal(np.concatenate([row[1] for row in rows]), expected[40 : 40 + len(rows)])
