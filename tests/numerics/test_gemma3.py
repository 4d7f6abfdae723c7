"""Gemma-3-270M from its Q4_K_M file, in float32, against transformers, which read the same file by its own rules.

pytest tests/numerics/test_gemma3.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from cupola import Engine, SamplingParams
from numerics.sequence import Sequences

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
TOLERANCE = 1e-3

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def compiled() -> Path:
    return compiled_folder("gemma3", "f32")


def test_logits_behind_the_window(compiled: Path) -> None:
    """The last rows see 552 tokens in full layers, and 512 in those that slide."""
    golden = np.load(GOLDENS / "gemma3_logits.npz")
    ids, prefill, rows = golden["ids"].tolist(), int(golden["prefill"]), len(golden["top_ids"])
    sequences = Sequences(compiled, max_tokens=len(ids))
    behind = len(ids) - rows
    sequences.run(ids[:behind], 128)
    logits = np.concatenate([sequences.run(ids[behind:prefill], prefill), sequences.run(ids[prefill:], 1)])
    assert len(logits) == rows
    top = np.take_along_axis(logits, golden["top_ids"], axis=1)
    assert np.abs(logits[:, golden["columns"]] - golden["column_logits"]).max() < TOLERANCE
    print(f"largest difference: {np.abs(top - golden['top_logits']).max():.2e}")
    assert np.abs(top - golden["top_logits"]).max() < TOLERANCE


def test_greedy_texts(compiled: Path) -> None:
    goldens = json.loads((GOLDENS / "gemma3_greedy.json").read_text())
    assert len(goldens) == 4
    with Engine(str(compiled)) as engine:
        found = engine.generate(
            [golden["prompt"] for golden in goldens],
            SamplingParams(temperature=0, max_tokens=len(goldens[0]["token_ids"]), ignore_eos=True),
        )
    for golden, one in zip(goldens, found, strict=True):
        assert (list(one.token_ids), one.text) == (golden["token_ids"], golden["text"])
        assert one.usage.prompt_tokens == len(golden["prompt_ids"])
