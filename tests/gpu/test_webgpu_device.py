"""WebGPU as a device of TVM's runtime: launches and copies; and every error is an exception, never an abort."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from driver import build_kernel, device, run, to_device
from tvm.script import tirx as T  # noqa: N812 -- as TVMScript is written

from cupola.engine import native_webgpu
from cupola.engine.native_library import native
from cupola.engine.native_webgpu import webgpu_adapters
from cupola.errors import EngineError


@T.prim_func(s_tir=True)
def scale(a: T.handle, b: T.handle, factor: T.float32, offset: T.int32):
    T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
    n = T.int64()
    a_buffer = T.match_buffer(a, (n,), "float32")
    b_buffer = T.match_buffer(b, (n,), "float32")
    for block in T.thread_binding((n + 63) // 64, thread="blockIdx.x"):
        for thread in T.thread_binding(64, thread="threadIdx.x"):
            with T.sblock("scale"):
                i = T.axis.spatial(n, block * 64 + thread)
                T.where(block * 64 + thread < n)
                b_buffer[i] = a_buffer[i] * factor + T.Cast("float32", offset)


@T.prim_func(s_tir=True)
def count(a: T.handle):
    """Adds one where each block says; a block too many would be seen at the last place, where WGSL clamps to."""
    T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
    n = T.int64()
    a_buffer = T.match_buffer(a, (n,), "int32")
    for block in T.thread_binding(n, thread="blockIdx.x"):
        for _ in T.thread_binding(1, thread="threadIdx.x"):
            with T.sblock("count"):
                i = T.axis.spatial(n, block)
                a_buffer[i] = a_buffer[i] + 1


def test_scalars_and_tensors_reach_the_kernel() -> None:
    a, b = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    run(scale, a, b, 0.5, -3)
    np.testing.assert_array_equal(b, a * 0.5 - 3)


@pytest.mark.parametrize("blocks", [0, 1, 65535, 65536, 65537, 140001])
def test_a_grid_of_any_size_runs_each_block_once(blocks: int) -> None:
    counts = np.zeros(blocks, np.int32)
    run(count, counts)
    assert (counts == 1).all()


@pytest.mark.parametrize(("dtype", "size"), [("float32", 0), ("int8", 1), ("int8", 7), ("float16", 3), ("uint32", 5)])
def test_copies_of_any_length_come_back(dtype: str, size: int) -> None:
    array = np.arange(size).astype(dtype)
    there = to_device(array)
    again = tvm.runtime.empty((size,), dtype, device())
    there.copyto(again)
    np.testing.assert_array_equal(again.numpy(), array)


def test_a_tensor_that_no_binding_can_hold_is_refused_with_both_sizes() -> None:
    most = webgpu_adapters()[0].max_tensor_bytes
    with pytest.raises(RuntimeError, match=rf"a tensor of {most + 16} bytes is too large .* {most}"):
        tvm.runtime.empty((most + 16,), "uint8", device())


def test_a_kernel_that_the_driver_refuses_is_an_error_and_the_next_one_runs() -> None:
    kernel = build_kernel(scale)["kernel"]
    a = to_device(np.ones(64, np.float32))
    kernel(a, a, 2.0, 0)  # read and written at once
    with pytest.raises(RuntimeError, match=r"WebGPU validation error: .*conflicting usages"):
        a.numpy()
    b = to_device(np.zeros(64, np.float32))
    kernel(a, b, 2.0, 0)
    assert (b.numpy() == 2).all()


def test_memory_is_given_back() -> None:
    device().sync()
    before = native("webgpu.allocated_bytes")(0)
    tensor = tvm.runtime.empty((1 << 20,), "float32", device())
    assert native("webgpu.allocated_bytes")(0) == before + (4 << 20)
    del tensor
    assert native("webgpu.allocated_bytes")(0) == before


LOST = """
import numpy as np
import tvm
from driver import build_kernel, device, to_device
from test_webgpu_device import scale
from cupola.engine.native_library import native

kernel, a, b = build_kernel(scale)["kernel"], to_device(np.ones(64, np.float32)), to_device(np.ones(64, np.float32))
native("webgpu.lose")(0)
for call in (lambda: kernel(a, b, 2.0, 0), lambda: b.numpy(), lambda: tvm.runtime.empty((4,), "int8", device()),
             lambda: device().sync()):
    try:
        call()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
"""


def test_a_lost_device_is_an_error_of_every_call() -> None:
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, str(Path(here).parent)])
    result = subprocess.run(
        [sys.executable, "-c", LOST], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.stdout.splitlines() == 4 * ["the WebGPU device is lost: Device lost"]


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_webgpu.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match="not installed") as caught:
        webgpu_adapters()
    assert "cupola[webgpu]" in str(caught.value.hint)


def test_a_library_that_is_another_one_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "libwgpu_native-release.so"
    other.write_bytes(b"no library")
    script = (
        "from pathlib import Path\nfrom cupola.engine import native_webgpu\n"
        f"native_webgpu._library_path = lambda: Path({str(other)!r})\n"
        "try:\n    native_webgpu.webgpu_adapters()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"EngineError {other} cannot be used:")
