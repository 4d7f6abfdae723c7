"""The engine with few pages for the layers with a window, on CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_stand_in import folder_with_ptx
from window_cases import (  # noqa: F401 -- pytest finds them here
    engine,
    model,
    on_cpu,
    test_pages_of_both_kinds_of_layers_are_found_and_copied,
)

from compiled import compiled_folder
from family_models import golden_shapes, write


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(compiled for CUDA, compiled for the processor)."""
    folder = tmp_path_factory.mktemp("windows") / "gemma3"
    write("gemma3", golden_shapes("gemma3"), folder)
    return folder_with_ptx(str(folder), "f32"), compiled_folder(str(folder), "f32")
