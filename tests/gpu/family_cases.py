"""Tiny models of every family on any GPU, against transformers (`tests/goldens/families`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from family_models import PREFILL, golden_logits, token_ids
from numerics.sequence import Sequences

TOLERANCE = 1e-3
TIE = 1e-4  # of two logits: either may be the larger one


def check_family(family: str, folder: Path) -> None:
    """Prefill, decode, and mixtures of both, of a family's tiny model that was compiled in float32."""
    sequences = Sequences(folder, count=2)
    ids, expected = token_ids(family), golden_logits(family)
    found = np.concatenate([sequences.run(ids[:PREFILL], PREFILL), sequences.run(ids[PREFILL:], 1)])
    assert np.abs(found - expected).max() < TOLERANCE
    chosen = np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert (expected.max(axis=1) - chosen).max() < TIE
    sequences.restart()
    together = [sequences.step({0: ids[at : at + 13], 1: ids[at : at + 1]}) for at in range(0, 26, 13)]
    np.testing.assert_allclose(np.concatenate([rows[0] for rows in together]), expected[:26], atol=TOLERANCE)
