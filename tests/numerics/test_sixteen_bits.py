"""Weights of 16 bits in a whole model: its logits are those of a float32 library with the same numbers.

pytest tests/numerics/test_sixteen_bits.py
"""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from compiled import compiled_folder
from numerics.sequence import Sequences, read_manifest
from tiny_models import TINY_MODELS

TINY = next(tiny for tiny in TINY_MODELS if tiny.name == "odd-width")  # inputs are no multiple of a group of 32
FLOAT_PAGES = '[kv_cache]\ndtype = "float32"\n'
TOLERANCE = 1e-4  # of logits around 3: nothing but the order of float32 sums differs
LEAST = 2.0**-14  # bfloat16 has no more digits than float16 from here on, so that these weights are exact in both


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sixteen") / "model"
    TINY.write(folder)
    weights = {name: np.where(abs(w) < LEAST, 0, w).astype(ml_dtypes.bfloat16) for name, w in TINY.weights().items()}
    save_file(weights, folder / "model.safetensors")
    (folder.parent / "float32.toml").write_text(FLOAT_PAGES)
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> np.ndarray:
    ids = TINY.token_ids()
    return Sequences(compiled_folder(str(checkpoint), "f32")).run(ids, len(ids))


@pytest.mark.parametrize("scheme", ["f16", "bf16"])
def test_logits_are_those_of_the_same_numbers_in_float32(checkpoint: Path, expected: np.ndarray, scheme: str) -> None:
    folder = compiled_folder(str(checkpoint), scheme, checkpoint.parent / "float32.toml")
    manifest = read_manifest(folder)
    assert manifest.scheme == scheme
    assert {weight.format for weight in manifest.weights} == {scheme, "vector"}
    ids, sequences = TINY.token_ids(), Sequences(folder)
    logits = sequences.run(ids, len(ids))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)
    for chunk in (1, 7):
        sequences.restart()
        np.testing.assert_array_equal(sequences.run(ids, chunk), logits)
