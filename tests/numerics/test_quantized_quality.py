"""What the 4-bit model loses: its mean KL divergence from the dequantized float32 model on a text of 2,000 tokens.

The weights of the two are the same numbers, so all of it comes from how the kernels compute. The measured value is
written to artifacts/kl.json; the bound is the one in tests/goldens/kl.json.

    pytest -s tests/numerics/test_quantized_quality.py
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from numerics.divergence import divergence
from numerics.sequence import Sequences

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
TOKENS = 2000

pytestmark = pytest.mark.model


def test_divergence_of_q4(compiled_smollm2: Path, compiled_smollm2_f32: Path) -> None:
    tokenizer = Tokenizer.from_file(str(compiled_smollm2 / "tokenizer.json"))
    ids = tokenizer.encode((GOLDENS / "kl_text.txt").read_text(), add_special_tokens=False).ids[:TOKENS]
    assert len(ids) == TOKENS
    reference = Sequences(compiled_smollm2_f32, max_tokens=TOKENS)
    measured = asdict(divergence(reference, Sequences(compiled_smollm2, max_tokens=TOKENS), ids))
    print(json.dumps(measured))
    artifacts = ROOT / "artifacts"
    artifacts.mkdir(exist_ok=True)
    (artifacts / "kl.json").write_text(json.dumps(measured, indent=1) + "\n")
    assert measured["mean_kl"] <= json.loads((GOLDENS / "kl.json").read_text())["bound"]
