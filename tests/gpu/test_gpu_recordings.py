"""Steps that are recorded once and replayed, on a model compiled for a device."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from recording_cases import (  # noqa: F401 -- pytest finds them here
    NAMES,
    TINY,
    a_recorded_model,
    called,
    request,
    test_a_large_step_moves_the_arguments_of_the_others,
    test_contexts_that_outgrow_their_room_and_batches_that_change,
    test_memory_of_recordings_stays_when_tvm_gives_back_what_nobody_uses,
    test_other_pages_are_other_recordings,
    test_requests_that_take_each_others_pages,
    test_where_recording_fails_steps_are_called_and_somebody_is_told,
)

from compiled import compiled_folder
from cupola.engine.native import NativeEngine, NativeModel, load_compiled, native
from cupola.engine.native_devices import allocated_bytes
from cupola.engine.request import EngineConfig
from gpu.kinds import config
from native.native_driver import run
from numerics.sequence import read_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    checkpoint = tmp_path_factory.mktemp("tiny") / TINY.name
    TINY.write(checkpoint)
    return compiled_folder(str(checkpoint), "f32", config(kind))


def test_lengths_of_prompts_and_contexts_take_no_memory_each(model: NativeModel, kind: str) -> None:
    with closing(NativeEngine(model, EngineConfig(num_pages=100, max_batch=2, prefix_cache=False))) as engine:
        run(engine, [request(0, 400, 2), request(1, 400, 40)])
        before = allocated_bytes(kind)
        for number in range(2, 12):
            run(engine, [request(number, 35 * number - 20, 3), request(100 + number, 30 * number, 3)])
        assert allocated_bytes(kind) == before


def test_what_cannot_be_repeated_is_refused_and_leaves_the_device_as_it_was(folder: Path, kind: str) -> None:
    model = load_compiled(folder, read_manifest(folder))
    model.alloc_kv_cache(4)
    arguments = ([3, 4, 5], [0, 1, 2], [0, 1, 2], [0, 3], [0, 1], [0], [3], [2])
    step = {name: np.array(values) for name, values in zip(NAMES, arguments, strict=True)}
    expected = model.forward(**step)
    with pytest.raises(RuntimeError, match="a copy cannot be recorded"):
        native("testing.record")(tvm_ffi.device(kind, 0), lambda: model.forward(**step))
    np.testing.assert_array_equal(model.forward(**step), expected)
