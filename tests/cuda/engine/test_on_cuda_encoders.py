"""Tiny encoders on CUDA: positions in two ways, windows and gates, against transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_stand_in import folder_with_ptx
from encoder_cases import GOLDENS, TINY, vectors

TOLERANCE = {"f32": 1e-3, "f16": 3e-2}


@pytest.mark.parametrize(("name", "quant"), [("mean", "f32"), ("modernbert", "f16")])
def test_vectors_are_those_of_transformers(name: str, quant: str, tmp_path: Path) -> None:
    TINY[name].write(tmp_path / name)
    expected = np.load(GOLDENS)[name]
    for found in vectors(folder_with_ptx(str(tmp_path / name), quant), TINY[name]):
        assert np.abs(found - expected).max() < TOLERANCE[quant]
