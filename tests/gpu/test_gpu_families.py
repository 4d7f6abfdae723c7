"""Tiny models of every family, compiled for a device, against transformers.

All tests run the families that have most between them: windows and soft caps, sinks and experts, learned positions.
`make families-gpu` (CUPOLA_GPU_FAMILIES=all) runs every one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from family_cases import check_family

from compiled import compiled_folder
from family_models import FAMILIES, golden_shapes, write
from gpu.kinds import config

CHOSEN = tuple(FAMILIES) if os.environ.get("CUPOLA_GPU_FAMILIES") == "all" else ("gemma2", "gpt-oss", "gpt2")


@pytest.mark.parametrize("family", CHOSEN)
def test_prefill_and_decode_are_those_of_transformers(family: str, tmp_path: Path, kind: str) -> None:
    write(family, golden_shapes(family), tmp_path / family)
    check_family(family, compiled_folder(str(tmp_path / family), "f32", config(kind)))
