"""What the 4-bit model loses: its mean KL divergence from the dequantized float32 model on a text of 2,000 tokens.

The weights of the two are the same numbers, so all of it comes from how the kernels compute. The measured value is
written to artifacts/kl.json; the bound is the one in tests/goldens/kl.json.

    pytest -s tests/numerics/test_quantized_quality.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from numerics.sequence import Sequences

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
TOKENS = 2000
CHUNK = 50

pytestmark = pytest.mark.model


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def test_divergence_of_q4(compiled_smollm2: Path, compiled_smollm2_f32: Path) -> None:
    tokenizer = Tokenizer.from_file(str(compiled_smollm2 / "tokenizer.json"))
    ids = tokenizer.encode((GOLDENS / "kl_text.txt").read_text(), add_special_tokens=False).ids[:TOKENS]
    assert len(ids) == TOKENS
    reference = Sequences(compiled_smollm2_f32, max_tokens=TOKENS)
    quantized = Sequences(compiled_smollm2, max_tokens=TOKENS)
    divergences, same_best = [], 0
    for at in range(0, TOKENS, CHUNK):
        p = log_probabilities(reference.step({0: ids[at : at + CHUNK]})[0])
        q = log_probabilities(quantized.step({0: ids[at : at + CHUNK]})[0])
        divergences.append((np.exp(p) * (p - q)).sum(axis=1))
        same_best += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
    divergence = np.concatenate(divergences)
    measured = {
        "tokens": TOKENS,
        "mean_kl": float(divergence.mean()),
        "p99_kl": float(np.quantile(divergence, 0.99)),
        "same_best_token": same_best / TOKENS,
    }
    print(json.dumps(measured))
    artifacts = ROOT / "artifacts"
    artifacts.mkdir(exist_ok=True)
    (artifacts / "kl.json").write_text(json.dumps(measured, indent=1) + "\n")
    assert measured["mean_kl"] <= json.loads((GOLDENS / "kl.json").read_text())["bound"]
