"""Tiny models of every family, compiled for WebGPU, against transformers (`tests/goldens/families`).

All tests run the families that have most between them: windows and soft caps, sinks and experts, learned positions.
`make families-gpu` (CUPOLA_GPU_FAMILIES=all) runs every one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from family_models import FAMILIES, PREFILL, golden_logits, golden_shapes, token_ids, write
from numerics.sequence import Sequences

CONFIG = Path(__file__).resolve().parents[2] / "compile_configs" / "webgpu.toml"
CHOSEN = tuple(FAMILIES) if os.environ.get("CUPOLA_GPU_FAMILIES") == "all" else ("gemma2", "gpt-oss", "gpt2")
TOLERANCE = 1e-3
TIE = 1e-4  # of two logits: either may be the larger one


@pytest.mark.parametrize("family", CHOSEN)
def test_prefill_and_decode_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    write(family, golden_shapes(family), tmp_path / family)
    sequences = Sequences(compiled_folder(str(tmp_path / family), "f32", CONFIG), count=2)
    ids, expected = token_ids(family), golden_logits(family)
    found = np.concatenate([sequences.run(ids[:PREFILL], PREFILL), sequences.run(ids[PREFILL:], 1)])
    assert np.abs(found - expected).max() < TOLERANCE
    chosen = np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert (expected.max(axis=1) - chosen).max() < TIE
    sequences.restart()
    together = [sequences.step({0: ids[at : at + 13], 1: ids[at : at + 1]}) for at in range(0, 26, 13)]
    np.testing.assert_allclose(np.concatenate([rows[0] for rows in together]), expected[:26], atol=TOLERANCE)
