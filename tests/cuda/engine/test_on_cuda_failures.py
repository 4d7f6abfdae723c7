"""What goes wrong on CUDA ends requests with a sentence, and never the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_stand_in import folder_with_ptx

from tiny_models import TINY_MODELS

TESTS = Path(__file__).parents[2]
BEGIN = """
import ctypes, json, sys
from pathlib import Path
from cupola.engine.native import NativeEngine, load_compiled
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from native.native_driver import Collector, greedy, run
from numerics.sequence import read_manifest

driver = ctypes.CDLL("libcuda.so.1")
folder = Path(sys.argv[1])

def say(*values):
    print(json.dumps(values), flush=True)

def load():
    return load_compiled(folder, read_manifest(folder))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = tmp_path_factory.mktemp("tiny")
    TINY_MODELS[0].write(checkpoint)
    return folder_with_ptx(str(checkpoint), "q4")


def run(folder: Path, script: str, **variables: str) -> list[list[object]]:
    """What a process says that ends well."""
    paths = os.pathsep.join(map(str, (TESTS, TESTS / "native")))
    result = subprocess.run(
        [sys.executable, "-c", BEGIN + script, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, **variables},
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


DEAD = """
engine = NativeEngine(load(), EngineConfig(num_pages=40))
collector = Collector(engine)
engine.add(greedy(1, [3, 4, 5], 200))
collector.until(lambda: 1 in collector.results)
driver.stand_in_die()
result = collector.until_ended([1])[1]
say(result.reasons, result.error)
engine.close()
say("closed")
"""


def test_a_device_that_dies_ends_the_requests_with_its_error(folder: Path) -> None:
    (reasons, error), closed = run(folder, DEAD)
    assert reasons == ["error"]
    assert "unspecified launch failure" in str(error)
    assert closed == ["closed"]


REFUSED = """
with_error = NativeEngine(load(), EngineConfig(num_pages=40))
expected = run(with_error, [greedy(1, [3, 4, 5], 12)])[1].tokens
driver.stand_in_fail(b"cuLaunchKernelEx")
failed = run(with_error, [greedy(2, [9, 4, 5], 12)])[2]
say(failed.reasons, failed.error)
say(run(with_error, [greedy(3, [3, 4, 5], 12)])[3].tokens == expected)
with_error.close()
"""


def test_a_launch_that_is_refused_ends_its_request_alone(folder: Path) -> None:
    (reasons, error), same = run(folder, REFUSED)
    assert reasons == ["error"]
    assert "CUDALaunch Error" in str(error) or "made to fail" in str(error)
    assert same == [True]


FULL = """
model = load()
try:
    NativeEngine(model, EngineConfig(num_pages=100_000))
except Exception as error:
    say(type(error).__name__, str(error).splitlines()[0])
engine = NativeEngine(model, EngineConfig(num_pages=40))
say(run(engine, [greedy(1, [3, 4, 5], 12)])[1].reasons)
engine.close()
"""


def test_pages_that_have_no_room_are_refused_and_fewer_are_served(folder: Path) -> None:
    (_, error), reasons = run(folder, FULL, CUPOLA_CUDA_MEMORY="16")
    assert "out of memory" in str(error)
    assert reasons == [["length"]]
