"""Devices of our own in TVM's runtime: launches, copies and memory."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from driver import device, run, to_device
from tvm.script import tirx as T  # noqa: N812 -- as TVMScript is written

from cupola.engine.native_devices import allocated_bytes, tensor_limit


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


def test_scalars_and_tensors_reach_the_kernel(kind: str) -> None:
    a, b = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    run(scale, a, b, 0.5, -3, kind=kind)
    np.testing.assert_array_equal(b, a * 0.5 - 3)


@pytest.mark.parametrize("blocks", [0, 1, 65535, 65536, 65537, 140001])
def test_a_grid_of_any_size_runs_each_block_once(blocks: int, kind: str) -> None:
    counts = np.zeros(blocks, np.int32)
    run(count, counts, kind=kind)
    assert (counts == 1).all()


@pytest.mark.parametrize(("dtype", "size"), [("float32", 0), ("int8", 1), ("int8", 7), ("float16", 3), ("uint32", 5)])
def test_copies_of_any_length_come_back(dtype: str, size: int, kind: str) -> None:
    array = np.arange(size).astype(dtype)
    there = to_device(array, kind)
    again = tvm.runtime.empty((size,), dtype, device(kind))
    there.copyto(again)
    np.testing.assert_array_equal(again.numpy(), array)


def test_a_tensor_that_is_too_large_is_refused_with_both_sizes(kind: str) -> None:
    limit = tensor_limit(kind)
    assert limit is not None
    most = limit.bytes
    with pytest.raises(RuntimeError, match=rf"a tensor of {most + 16} bytes is too large .* {most}"):
        tvm.runtime.empty((most + 16,), "uint8", device(kind))


def test_memory_is_given_back(kind: str) -> None:
    device(kind).sync()
    before = allocated_bytes(kind)
    tensor = tvm.runtime.empty((1 << 20,), "float32", device(kind))
    assert allocated_bytes(kind) == before + (4 << 20)
    del tensor
    assert allocated_bytes(kind) == before
