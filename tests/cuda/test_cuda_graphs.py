"""CUDA graphs, without a GPU: what TVM's own runtime for CUDA is called for, and in which order.

The stand-in for NVIDIA's libraries writes it down. What comes out is in test_cuda_engine.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_stand_in import folder_with_ptx, libraries

from cupola.compiler.cuda import find_nvcc
from tiny_models import TINY_MODELS

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
import gc, json, sys
from pathlib import Path
import tvm_ffi
from cuda_stand_in import StandIn
from cupola.engine.native_library import native

cuda = StandIn(Path(sys.argv[1]))
device = tvm_ffi.device("cuda", 0)
record = native("testing.record")

def outcome(call):
    try:
        call()
    except RuntimeError as error:
        return str(error).splitlines()[0]
"""


@pytest.fixture(scope="module")
def stand_in() -> Path:
    return libraries()


def run(script: str, *arguments: Path) -> list[object]:
    """What a process of its own says with `print(json.dumps(...))`."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("tests", "tests/native", "tests/cuda"))
    result = subprocess.run(
        [sys.executable, "-c", BEGIN + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


ORDER = """
def launches():
    assert cuda.stream() is not None
    for _ in range(3):
        cuda.launch()

replay = record(device, launches)
print(json.dumps(cuda.written()))
cuda.launch()
replay()
replay()
print(json.dumps([cuda.written(), cuda.stream(), cuda.alive()]))
del replay
print(json.dumps(cuda.alive()))
"""


def test_what_is_launched_is_captured_on_a_stream_of_its_own_and_replayed_on_the_default_one(stand_in: Path) -> None:
    recorded, (replayed, stream, alive), alive_at_the_end = run(ORDER, stand_in)
    # 1: it does not wait for the default stream; mode 2: relaxed.
    assert recorded == ["stream made, flags 1", "begin, mode 2", "end", "graph of 3, flags 0", "stream destroyed"]
    assert replayed == ["launch", "replay of 3", "replay of 3"]
    assert stream is None
    assert alive == 1
    assert alive_at_the_end == 0


RECORDED = ["stream made, flags 1", "begin, mode 2", "end", "graph of 1, flags 0", "stream destroyed"]
ERRORS = """
def refuse():
    cuda.launch()
    raise ValueError("no")

def fail(function):
    cuda.fail(function)
    return outcome(lambda: record(device, cuda.launch)())

try:
    record(device, refuse)
except RuntimeError as error:
    print(json.dumps([str(error).splitlines()[0], cuda.written(), cuda.stream(), cuda.alive()]))
for function in sys.argv[2:]:
    print(json.dumps([fail(function), cuda.written(), cuda.stream(), cuda.alive()]))
    cuda.written()
record(device, cuda.launch)()
print(json.dumps(cuda.written()))
"""
FAILING = {
    "cudaStreamBeginCapture": "beginning to record",
    "cudaStreamEndCapture": "recording",
    "cudaGraphInstantiate": "preparing a graph",
    "cudaGraphLaunch": "launching a graph",
}


def test_after_an_error_nothing_is_left_and_the_next_recording_is_good(stand_in: Path) -> None:
    raised, *failed, last = run(ERRORS, stand_in, *map(Path, FAILING))
    assert raised == ["ValueError: no", ["stream made, flags 1", "begin, mode 2", "end", "stream destroyed"], None, 0]
    for (function, doing), found in zip(FAILING.items(), failed, strict=True):
        assert isinstance(found, list)
        error, written, stream, alive = found
        assert error == f"CUDA: made to fail (while {doing})"
        assert f"{function} failed" in written
        assert written[-1] == "stream destroyed" or function == "cudaGraphLaunch"
        assert (stream, alive) == (None, 0)
    assert last == [*RECORDED, "replay of 1"]


ENGINE = """
from native_driver import greedy, run
from numerics.sequence import read_manifest
from cupola.engine.native import NativeEngine, load_compiled
from cupola.engine.request import EngineConfig

folder = Path(sys.argv[2])
model = load_compiled(folder, read_manifest(folder))
engine = NativeEngine(model, EngineConfig(num_pages=40))
cuda.written()
assert run(engine, [greedy(1, [3, 4, 5], 10)])[1].reasons == ["length"]
decodes, samples = model.step_counts()
print(json.dumps(cuda.written()))
print(json.dumps([[counts.called, counts.recorded, counts.replayed] for counts in (decodes, samples)]))
engine.close()
del engine, model
gc.collect()
print(json.dumps(cuda.alive()))
"""


def test_a_decode_is_two_graphs_and_three_copies(stand_in: Path, tmp_path: Path) -> None:
    """The whole engine on a library for CUDA: a prompt, and then nine decodes."""
    TINY_MODELS[0].write(tmp_path)
    folder = folder_with_ptx(str(tmp_path), "q4")
    written, counts, alive = run(ENGINE, stand_in, folder)
    assert isinstance(written, list)
    assert counts == [[1, 1, 8], [1, 1, 8]]
    assert alive == 0
    assert not [line for line in written if "while" in line or "beside" in line or "failed" in line]
    kernels = [line.removeprefix("replay of ") for line in written if line.startswith("replay")]
    assert len(set(kernels)) == 2
    assert all(int(count) > 3 for count in kernels)
    step = ["upload", f"replay of {kernels[0]}", "upload", f"replay of {kernels[1]}", "download"]
    assert written[-7 * 5 :] == 7 * step
    # In the step that is recorded too, nothing is launched or allocated besides.
    recorded = written[: -7 * 5]
    first = recorded.index("begin, mode 2")
    assert recorded[first - 1 :] == [
        *("upload", "begin, mode 2", "end", f"graph of {kernels[0]}, flags 0", f"replay of {kernels[0]}"),
        *("upload", "begin, mode 2", "end", f"graph of {kernels[1]}, flags 0", f"replay of {kernels[1]}", "download"),
    ]


def test_functions_are_those_of_the_toolkits_header(tmp_path: Path) -> None:
    nvcc = find_nvcc()
    assert nvcc is not None
    command = [str(nvcc), "-std=c++17", "-I", str(ROOT / "cpp"), "-c", "-o", str(tmp_path / "layout.o")]
    command.append(str(Path(__file__).with_name("cuda_graph_layout.cc")))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
