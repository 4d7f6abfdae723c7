"""The stand-in for NVIDIA's libraries itself: what CUDA's documents promise, and no more.

Each test is a process of its own. Numbers are CUDA's errors: 1 invalid value, 2 no memory, 201 no context, 209 no code
for this device, 700 illegal address, 701 too many resources, 900 to 906 captures.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_stand_in import libraries

from cupola.compiler.cuda import find_nvcc

BEGIN = """
import ctypes, json, sys
from ctypes import byref, c_int, c_size_t, c_void_p
from pathlib import Path
from raw_cuda import *

cuda = Cuda(Path(sys.argv[1]))

def say(*values):
    print(json.dumps(values), flush=True)
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    return libraries()


def run(folder: Path, script: str, *arguments: Path, code: int = 0, **variables: str) -> list[list[object]]:
    """What a process says."""
    result = subprocess.run(
        [sys.executable, "-c", BEGIN + script, str(folder), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **variables},
    )
    assert result.returncode == code, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


MEMORY = """
available, total = c_size_t(), c_size_t()
cuda("cudaMemGetInfo", byref(available), byref(total))
say(available.value, total.value)
data = c_void_p()
say(cuda.error("cudaMalloc", byref(data), c_size_t(total.value + 1)))
data = cuda.malloc(6)
say(data.value % 256, cuda.read(data))
host = ctypes.create_string_buffer(8)
say(cuda.error("cudaMemcpyAsync", host, data, c_size_t(7), DOWNLOAD, None),
    cuda.error("cudaMemcpyAsync", host, data, c_size_t(6), UPLOAD, None))
say(cuda.error("cudaFree", c_void_p(data.value + 256)), cuda.error("cudaFree", data), cuda.error("cudaFree", data))
say(cuda.error("cudaMemcpyAsync", host, data, c_size_t(4), DOWNLOAD, None))
cuda("cudaMemGetInfo", byref(available), byref(total))
say(available.value == total.value, cuda.malloc(6).value == data.value)
"""


def test_memory_is_bounded_and_poisoned_and_gone_when_it_is_freed(folder: Path) -> None:
    assert run(folder, MEMORY, CUPOLA_CUDA_MEMORY="3") == [
        [3 << 20, 3 << 20],
        [2],
        [0, -1],
        [1, 1],
        [1, 0, 1],
        [1],
        [True, False],
    ]


def test_a_host_that_follows_a_pointer_of_the_device_is_ended(folder: Path) -> None:
    run(folder, "ctypes.string_at(cuda.malloc(64), 4)", code=-signal.SIGSEGV)


ORDER = """
data, other = cuda.malloc(4), cuda.malloc(4)
word = cuda.write(data, 1)
word.value = 2
say(cuda.read(data))  # nobody had waited
free, bound = cuda.stream(NON_BLOCKING), cuda.stream()
kept = cuda.write(data, 3, free)
say(cuda.read(data))  # the default stream does not wait for it
say(cuda.read(data, free))
kept = cuda.write(data, 4, bound)
say(cuda.read(data))  # but for this one
event = c_void_p()
cuda("cudaEventCreate", byref(event))
kept = cuda.write(data, 5, free)
cuda("cudaEventRecord", event, free)
last = cuda.write(data, 6, free)
cuda("cudaStreamWaitEvent", bound, event, 0)
say(cuda.read(data, bound))  # what came before the event, and nothing behind it
say(cuda.read(data, free))
"""


def test_streams_do_what_they_are_asked_in_order_and_no_earlier_than_they_must(folder: Path) -> None:
    assert run(folder, ORDER) == [[2], [2], [3], [4], [5], [6]]


FAULT = """
add, data = cuda.kernel("add"), cuda.malloc(4)
beyond = c_void_p(data.value + 4)
say(cuda.launch(add, beyond, c_int(1)), cuda.runtime.cudaGetLastError())
say(cuda.error("cudaStreamSynchronize", None), cuda.runtime.cudaGetLastError(), cuda.runtime.cudaGetLastError())
say(cuda.launch(add, data, c_int(1)), cuda.error("cudaFree", data))
"""


def test_a_kernels_fault_is_told_when_somebody_waits_and_ends_the_context(folder: Path) -> None:
    assert run(folder, FAULT) == [[0, 0], [700, 700, 700], [700, 700]]


ERRORS = """
data = c_void_p()
say(cuda.error("cudaMalloc", byref(data), c_size_t(1 << 50)), cuda.runtime.cudaPeekAtLastError())
say(cuda.runtime.cudaGetLastError(), cuda.runtime.cudaGetLastError())
import threading
module, found = c_void_p(), []
thread = threading.Thread(target=lambda: found.append(cuda.error("cuModuleLoadData", byref(module), KERNELS)))
thread.start(), thread.join()
say(found, cuda.error("cuModuleLoadData", byref(module), KERNELS))
"""


def test_an_error_is_told_once_and_a_thread_has_no_context_before_it_asks_for_one(folder: Path) -> None:
    assert run(folder, ERRORS) == [[2, 2], [2, 0], [[201], 0]]


CAPTURE = """
add, data = cuda.kernel("add"), cuda.malloc(4)
kept = cuda.write(data, 0)
cuda.read(data)
graph, ready = c_void_p(), c_void_p()
stream = cuda.stream(NON_BLOCKING)
cuda("cudaStreamBeginCapture", stream, RELAXED)
by = c_int(5)
say(cuda.launch(add, data, by, stream=stream))
by.value = 100
cuda("cudaStreamEndCapture", stream, byref(graph))
say(cuda.read(data))
cuda("cudaGraphInstantiate", byref(ready), graph, ctypes.c_ulonglong(0))
cuda("cudaGraphDestroy", graph)
for _ in range(3):
    cuda("cudaGraphLaunch", ready, None)
cuda("cudaGraphExecDestroy", ready)
say(cuda.read(data))
"""


def test_a_graph_keeps_arguments_as_they_were_and_runs_as_often_as_it_is_launched(folder: Path) -> None:
    assert run(folder, CAPTURE) == [[0], [0], [15]]


REFUSALS = """
graph, data = c_void_p(), cuda.malloc(4)
say(cuda.error("cudaStreamBeginCapture", None, RELAXED))
free, bound = cuda.stream(NON_BLOCKING), cuda.stream()
say(cuda.error("cudaStreamEndCapture", free, byref(graph)))

def while_capturing(stream, mode, call):
    cuda("cudaStreamBeginCapture", stream, mode)
    error = call()
    say(error, cuda.error("cudaStreamEndCapture", stream, byref(graph)))

word, other = c_int(), c_void_p()
to_device = lambda stream: cuda.error("cudaMemcpyAsync", data, byref(word), c_size_t(4), UPLOAD, stream)
while_capturing(free, RELAXED, lambda: cuda.error("cudaStreamSynchronize", free))
while_capturing(free, RELAXED, lambda: to_device(free))
while_capturing(free, RELAXED, lambda: to_device(None))
while_capturing(bound, RELAXED, lambda: to_device(None))
while_capturing(free, RELAXED, lambda: cuda.error("cudaMalloc", byref(other), c_size_t(4)))
while_capturing(free, GLOBAL, lambda: cuda.error("cudaMalloc", byref(other), c_size_t(4)))
"""


def test_what_has_no_place_in_a_capture_ends_it(folder: Path) -> None:
    assert run(folder, REFUSALS) == [[900], [401], [900, 901], [900, 901], [0, 0], [906, 901], [0, 0], [900, 901]]


LIMITS = """
shared, narrow = cuda.kernel("shared"), cuda.kernel("narrow")
KiB = 1024
say(cuda.launch(shared, shared=47 * KiB), cuda.launch(shared, shared=47 * KiB + 1))
say(cuda.error("cuFuncSetAttribute", shared, DYNAMIC_SHARED, 98 * KiB), cuda.launch(shared, shared=98 * KiB))
say(cuda.error("cuFuncSetAttribute", shared, DYNAMIC_SHARED, 226 * KiB),
    cuda.error("cuFuncSetAttribute", shared, DYNAMIC_SHARED, 226 * KiB + 1))
say(*[cuda.launch(shared, block=block) for block in ((1024, 1, 1), (1025, 1, 1), (32, 33, 1), (1, 1, 65), (0, 1, 1))])
say(*[cuda.launch(shared, grid=grid) for grid in ((70000, 1, 1), (1, 65536, 1), (1, 1, 65536), (0, 1, 1))])
say(*[cuda.launch(narrow, block=(threads, 1, 1)) for threads in (64, 65)])
"""


@pytest.mark.parametrize(("arch", "most"), [("sm_89", 1), ("sm_90", 0)])
def test_launches_are_bounded_as_the_devices(folder: Path, arch: str, most: int) -> None:
    assert run(folder, LIMITS, CUPOLA_CUDA_ARCH=arch) == [
        [0, 1],
        [0, 0],
        [most, 1],
        [0, 1, 1, 1, 1],
        [0, 1, 1, 1],
        [0, 701],
    ]


REGISTERS = """
extern "C" __global__ void many(float* a) {
  float x[96], sum = 0;
#pragma unroll
  for (int i = 0; i < 96; ++i) sum += x[i] = a[i];
#pragma unroll
  for (int i = 0; i < 96; ++i) a[i] = x[i] * sum;  // so that all of them have to be kept
}
"""
IMAGES = """
for name in sys.argv[2:]:
    module, function, data = c_void_p(), c_void_p(), cuda.malloc(400)
    error = cuda.error("cuModuleLoadData", byref(module), Path(name).read_bytes())
    say(error)
    if not error:
        cuda("cuModuleGetFunction", byref(function), module, b"many")
        say(*[cuda.launch(function, data, block=(threads, 1, 1)) for threads in (128, 1024)])
"""


def test_of_a_container_the_devices_code_is_taken_and_bounds_its_registers(folder: Path, tmp_path: Path) -> None:
    nvcc = find_nvcc()
    assert nvcc is not None
    source = tmp_path / "many.cu"
    source.write_text(REGISTERS)
    images = {
        "sm_90": ["-gencode", "arch=compute_90,code=[sm_90,compute_90]"],
        "sm_80": ["-gencode", "arch=compute_80,code=sm_80"],
    }
    for name, options in images.items():
        command = [str(nvcc), "--fatbin", "-O3", *options, "--no-compress", "-o", str(tmp_path / name), str(source)]
        subprocess.run(command, check=True)
    assert run(folder, IMAGES, *(tmp_path / name for name in images)) == [[0], [0, 701], [209]]
