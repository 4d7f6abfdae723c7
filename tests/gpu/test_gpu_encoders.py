"""Tiny encoders of every kind, compiled for a device, against transformers, as the processor's libraries are: vectors,
and the numbers of classifiers.

All tests run what differs most; `make families-gpu` (CUPOLA_GPU_FAMILIES=all) runs every one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from encoder_cases import GOLDENS, TINY, vectors

from cupola.compiler.compile import compile_model
from cupola.compiler.config import load
from cupola.compiler.target import resolve_all
from cupola.weights.source import open_checkpoint
from gpu.kinds import config

# Positions in two ways and distances; windows and rotation; gates; heads. Then every one.
SOME = ("mean", "xlm-roberta", "mpnet", "modernbert", "nomic_bert", "gte", "bert-labels")
CHOSEN = tuple(TINY) if os.environ.get("CUPOLA_GPU_FAMILIES") == "all" else SOME
TOLERANCE = {"f32": 1e-3, "q16": 5e-3}  # as of the processor's libraries: `tests/numerics/test_encoders.py`


@pytest.mark.parametrize("name", CHOSEN)
def test_vectors_are_those_of_transformers(name: str, tmp_path: Path, kind: str) -> None:
    tiny = TINY[name]
    tiny.write(tmp_path / name)
    expected = np.load(GOLDENS)[name]
    for quant in ("f32", "q16") if name in ("mean", "modernbert") else ("f32",):
        compile_for(kind, tmp_path / name, quant, tmp_path / quant)
        for found in vectors(tmp_path / quant, tiny):
            assert np.abs(found - expected).max() < TOLERANCE[quant]


def compile_for(kind: str, model: Path, quant: str, folder: Path) -> None:
    chosen = load(config(kind)).with_quant(quant)
    compile_model(open_checkpoint(str(model)), chosen, resolve_all(chosen.target, quant), folder, lambda _: None)
