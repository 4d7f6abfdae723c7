"""Decodes that are recorded as CUDA's graphs and replayed, on TVM's own runtime over an interpreter of PTX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from cuda_stand_in import folder_with_ptx
from recording_cases import (  # noqa: F401 -- pytest finds them here
    NAMES,
    TINY,
    a_recorded_model,
    called,
    test_memory_of_recordings_stays_when_tvm_gives_back_what_nobody_uses,
    test_other_pages_are_other_recordings,
    test_requests_that_take_each_others_pages,
    test_where_recording_fails_steps_are_called_and_somebody_is_told,
)

from cupola.engine.native import load_compiled, native
from numerics.sequence import read_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = tmp_path_factory.mktemp("tiny") / TINY.name
    TINY.write(checkpoint)
    return folder_with_ptx(str(checkpoint), "f32")


def test_what_cannot_be_repeated_is_refused_and_leaves_the_device_as_it_was(folder: Path) -> None:
    loaded = load_compiled(folder, read_manifest(folder))
    loaded.alloc_kv_cache(4)
    arguments = ([3, 4, 5], [0, 1, 2], [0, 1, 2], [0, 3], [0, 1], [0], [3], [2])
    step = {name: np.array(values) for name, values in zip(NAMES, arguments, strict=True)}
    expected = loaded.forward(**step)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        native("testing.record")(tvm_ffi.device("cuda", 0), lambda: loaded.forward(**step))
    np.testing.assert_array_equal(loaded.forward(**step), expected)
