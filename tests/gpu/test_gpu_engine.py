"""The whole engine on a model compiled for a device: lavapipe, or a processor's OpenCL, where there is no GPU.

What it computes is compared with the library for the processor; what surrounds a request must not change it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_cases import (  # noqa: F401 -- pytest finds them here
    PROMPT,
    a_checkpoint,
    a_cpu_model,
    a_model,
    a_tolerance,
    an_engine,
    compiled_for_the_processor,
    greedy,
    test_a_cancelled_request_gives_its_pages_back,
    test_a_prompt_in_chunks_is_that_of_the_processor,
    test_logits_are_those_of_the_processors_library,
    test_tokens_are_those_of_the_processor_whatever_surrounds_a_request,
    test_what_requests_ask_of_their_logits_is_done_on_the_device,
    test_what_was_computed_is_found_again_and_copied,
)

from compiled import compiled_folder
from cupola.engine import native_model
from cupola.engine.native import NativeEngine, load_compiled
from cupola.engine.native_devices import KernelProfile, TensorLimit
from cupola.errors import ModelError
from gpu.kinds import config
from native.native_driver import run
from numerics.sequence import read_manifest


@pytest.fixture(scope="module")
def on_gpu(checkpoint: str, kind: str) -> Path:
    return compiled_folder(checkpoint, "f32", config(kind))


def test_a_weight_that_the_device_cannot_hold_is_refused_by_name(on_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_model, "tensor_limit", lambda kind: TensorLimit(f"a {kind} device", 1000))
    with pytest.raises(ModelError, match=r"the weight `.*` has \d+ bytes, but a tensor of .* has at most 1000"):
        load_compiled(on_gpu, read_manifest(on_gpu))


def test_kernels_can_be_measured(engine: NativeEngine, kind: str) -> None:
    with KernelProfile(kind) as profile:
        run(engine, [greedy(1, PROMPT[:10])])
    assert sum(time.calls for time in profile.times) > 20
    assert all(time.microseconds > 0 for time in profile.times)
