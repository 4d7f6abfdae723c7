"""The whole engine on a model compiled for CUDA in float32, on TVM's own runtime over an interpreter of PTX: what the
other GPUs' engines have to do, by the same cases.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_stand_in import folder_with_ptx
from engine_cases import (  # noqa: F401 -- pytest finds them here
    a_checkpoint,
    a_cpu_model,
    a_model,
    a_tolerance,
    an_engine,
    compiled_for_the_processor,
    test_a_cancelled_request_gives_its_pages_back,
    test_a_prompt_in_chunks_is_that_of_the_processor,
    test_logits_are_those_of_the_processors_library,
    test_tokens_are_those_of_the_processor_whatever_surrounds_a_request,
    test_what_requests_ask_of_their_logits_is_done_on_the_device,
    test_what_was_computed_is_found_again_and_copied,
)


@pytest.fixture(scope="module")
def on_gpu(checkpoint: str) -> Path:
    return folder_with_ptx(checkpoint, "f32")
