"""Families of models on CUDA: latents, experts, sinks and windows, in float32 against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_stand_in import folder_with_ptx
from family_cases import check_family

from family_models import golden_shapes, write


@pytest.mark.parametrize("family", ["deepseek3", "gpt-oss", "qwen2-moe", "gemma3"])
def test_prefill_and_decode_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    write(family, golden_shapes(family), tmp_path / family)
    check_family(family, folder_with_ptx(str(tmp_path / family), "f32"))
