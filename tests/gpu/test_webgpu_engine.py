"""The whole engine on a model compiled for WebGPU, on the first adapter: lavapipe where there is no GPU.

What it computes is compared with the library for the processor; what surrounds a request must not change it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_cases import (  # noqa: F401 -- pytest finds them here
    PROMPT,
    TINY,
    TOLERANCE,
    an_engine,
    greedy,
    test_a_cancelled_request_gives_its_pages_back,
    test_logits_are_those_of_the_processors_library,
    test_tokens_are_those_of_the_processor_whatever_surrounds_a_request,
    test_what_requests_ask_of_their_logits_is_done_on_the_device,
    test_what_was_computed_is_found_again_and_copied,
)

from compiled import compiled_folder
from cupola.engine import native_model
from cupola.engine.native import NativeEngine, NativeModel, load_compiled
from cupola.engine.native_webgpu import WebGpuProfile, webgpu_adapters
from cupola.errors import ModelError
from native.native_driver import run
from numerics.sequence import read_manifest

CONFIG = Path(__file__).resolve().parents[2] / "compile_configs" / "webgpu.toml"


@pytest.fixture(scope="module")
def tolerance() -> float:
    return TOLERANCE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny") / TINY.name
    TINY.write(folder)
    return str(folder)


@pytest.fixture(scope="module")
def on_gpu(checkpoint: str) -> Path:
    return compiled_folder(checkpoint, "f32", CONFIG)


@pytest.fixture(scope="module")
def on_cpu(checkpoint: str) -> Path:
    return compiled_folder(checkpoint, "f32")


@pytest.fixture(scope="module")
def model(on_gpu: Path) -> NativeModel:
    return load_compiled(on_gpu, read_manifest(on_gpu))


@pytest.fixture(scope="module")
def cpu_model(on_cpu: Path) -> NativeModel:
    return load_compiled(on_cpu, read_manifest(on_cpu))


def test_a_weight_that_the_device_cannot_hold_is_refused_by_name(on_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(webgpu_adapters()[0], max_binding_bytes=1000)
    monkeypatch.setattr(native_model, "webgpu_adapters", lambda: (small,))
    with pytest.raises(ModelError, match=r"the weight `.*` has \d+ bytes, but a tensor of .* has at most 1000"):
        load_compiled(on_gpu, read_manifest(on_gpu))


def test_kernels_can_be_measured(engine: NativeEngine) -> None:
    with WebGpuProfile() as profile:
        run(engine, [greedy(1, PROMPT[:10])])
    assert sum(time.calls for time in profile.times) > 20
    assert all(time.microseconds > 0 for time in profile.times)


LOST = """
import sys
from pathlib import Path
from cupola.engine.native import NativeEngine, load_compiled
from cupola.engine.native_library import native
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from native.native_driver import Collector
from numerics.sequence import read_manifest

folder = Path(sys.argv[1])
engine = NativeEngine(load_compiled(folder, read_manifest(folder)), EngineConfig(num_pages=40))
collector = Collector(engine)
sampling = SamplingParams(temperature=0.0, seed=0, max_tokens=500)
engine.add(GenerateRequest(id=1, token_ids=(3, 4, 5), sampling=sampling))
collector.until(lambda: 1 in collector.results)
native("webgpu.lose")(0)
print(collector.until_ended([1])[1].reasons, collector.results[1].error)
engine.close()
"""


def test_a_lost_device_ends_the_requests_with_its_name_and_not_the_process(on_gpu: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", LOST, str(on_gpu)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.startswith("['error'] ")
    assert "the WebGPU device is lost" in result.stdout
