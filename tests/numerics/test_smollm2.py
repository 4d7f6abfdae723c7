"""The real checkpoint in float32 against transformers, which computed `tests/goldens/smollm2_*` from the same file.

pytest tests/numerics/test_smollm2.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cupola import Engine, SamplingParams
from numerics.sequence import Sequences

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
TOLERANCE = 1e-3

pytestmark = pytest.mark.model


def test_logits_of_prefill_and_decode(compiled_smollm2_f32: Path) -> None:
    golden = np.load(GOLDENS / "smollm2_logits.npz")
    ids, prefill = golden["ids"].tolist(), int(golden["prefill"])
    sequences = Sequences(compiled_smollm2_f32)
    logits = np.concatenate([sequences.run(ids[:prefill], prefill), sequences.run(ids[prefill:], 1)])
    top = np.take_along_axis(logits, golden["top_ids"], axis=1)
    of_columns = np.abs(logits[:, golden["columns"]] - golden["column_logits"]).max(axis=1)
    difference = np.maximum(of_columns, np.abs(top - golden["top_logits"]).max(axis=1))
    print(f"largest difference: prefill {difference[:prefill].max():.2e}, decode {difference[prefill:].max():.2e}")
    assert len(difference[prefill:]) == 32
    assert difference.max() < TOLERANCE


def test_greedy_texts(compiled_smollm2_f32: Path) -> None:
    goldens = json.loads((GOLDENS / "smollm2_greedy.json").read_text())
    assert len(goldens) == 8
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
    with Engine(str(compiled_smollm2_f32)) as engine:
        from_ids = engine.generate([golden["prompt_ids"] for golden in goldens], params)
        from_text = engine.generate([golden["prompt"] for golden in goldens], params)
    for golden, by_ids, by_text in zip(goldens, from_ids, from_text, strict=True):
        assert list(by_ids.token_ids) == golden["token_ids"]
        assert by_ids.text == golden["text"]
        assert (by_text.token_ids, by_text.text) == (by_ids.token_ids, by_ids.text)
        assert by_text.usage.cached_tokens > 0  # the second time the cache has the prompts
