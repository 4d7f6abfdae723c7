"""The engine with few pages for the layers with a window, on a model compiled for a device.

All tests run a model that has layers of both kinds; `make families-gpu` also one whose layers all have a window.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from window_cases import (  # noqa: F401 -- pytest finds them here
    engine,
    model,
    on_cpu,
    test_pages_of_both_kinds_of_layers_are_found_and_copied,
    test_texts_far_longer_than_the_window,
)

from compiled import compiled_folder
from family_models import golden_shapes, write
from gpu.kinds import config

CHOSEN = ("gemma3", "mistral") if os.environ.get("CUPOLA_GPU_FAMILIES") == "all" else ("gemma3",)


@pytest.fixture(scope="module", params=CHOSEN)
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kind: str) -> tuple[Path, Path]:
    """(compiled for the device, compiled for the processor)."""
    folder = tmp_path_factory.mktemp("windows") / request.param
    write(request.param, golden_shapes(request.param), folder)
    return compiled_folder(str(folder), "f32", config(kind)), compiled_folder(str(folder), "f32")
