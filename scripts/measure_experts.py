"""Decode of a mixture of experts: what its products cost beside dense ones of the bytes that they use.

    python scripts/measure_experts.py [--cpu native] [--format q4] [--rows 1 4 16]

Of 128 experts (those of Qwen 3 30B A3B: 2048 inputs, 768 wide) every row uses 8. The dense product has as many outputs
as the experts in use have together, and there are so many dense matrices that none is in a cache when it is read. One
thread's processor time, the median over calls, both in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

os.environ["TVM_NUM_THREADS"] = "1"

import numpy as np
import tvm

from cupola.compiler import pipeline
from cupola.compiler.config import TargetConfig
from cupola.compiler.target import CpuTarget, resolve
from cupola.kernels.cpu.experts import ExpertsSpec, linear_experts
from cupola.kernels.cpu.isa import BY_NAME
from cupola.kernels.cpu.linear import linear
from cupola.kernels.cpu.linear_spec import LinearSpec
from cupola.quantize.formats import GROUP, Format
from cupola.quantize.layouts import packed_dtype, packed_shape

COUNT, USED, HIDDEN, WIDTH = 128, 8, 2048, 768
CALLS = 60


def build(function: tvm.tirx.PrimFunc, target: CpuTarget) -> Callable[..., None]:
    pipeline.register()
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return tvm.tirx.build(module, target=target.tvm_target(), pipeline=pipeline.CPU_PIPELINE)["kernel"]


def random_bytes(rng: np.random.Generator, fmt: Format, rows: int, inputs: int) -> tvm.runtime.Tensor:
    """A packed matrix whose numbers do not matter, but are finite."""
    shape, dtype = packed_shape(fmt, (rows, inputs)), packed_dtype(fmt)
    return tvm.runtime.tensor(rng.integers(0, 60, shape, np.uint8).astype(dtype))


def inputs_of(rng: np.random.Generator, fmt: Format, rows: int, width: int) -> list[tvm.runtime.Tensor]:
    if not fmt.grouped:
        return [tvm.runtime.tensor(rng.standard_normal((rows, width)).astype(np.float32))]
    q = rng.integers(-127, 128, (rows, width), np.int8)
    return [tvm.runtime.tensor(q), tvm.runtime.tensor(np.ones((rows, width // GROUP, 2), np.float32))]


def order_of(chosen: np.ndarray) -> list[tvm.runtime.Tensor]:
    """As `routing.route` sorts pairs."""
    flat = chosen.reshape(-1)
    counts, in_use = np.bincount(flat, minlength=COUNT), np.unique(flat)
    busy = np.zeros(COUNT + 1, np.int32)
    busy[: len(in_use)], busy[-1] = in_use, len(in_use)
    arrays = (np.argsort(flat, kind="stable"), np.array([0, *np.cumsum(counts)]), busy)
    return [tvm.runtime.tensor(array.astype(np.int32)) for array in arrays]


def timed(call: Callable[[], None]) -> float:
    begin = time.thread_time()
    call()
    return time.thread_time() - begin


def measure(target: CpuTarget, fmt: Format, rows: int, gated: bool) -> None:
    """One of the two products of a layer: gate and up, or down."""
    rng, isa = np.random.default_rng(rows), BY_NAME[target.isa]
    outputs, inputs = (2 * WIDTH, HIDDEN) if gated else (HIDDEN, WIDTH)
    spec = ExpertsSpec(LinearSpec(fmt, inputs, outputs, gated=gated), COUNT, USED, pairs=not gated)
    kernel, matrix = build(linear_experts(spec, isa), target), random_bytes(rng, fmt, COUNT * outputs, inputs)
    routes = [np.stack([rng.permutation(COUNT)[:USED] for _ in range(rows)]) for _ in range(CALLS)]
    used = [len(np.unique(chosen)) for chosen in routes]
    x = inputs_of(rng, fmt, rows * (1 if gated else USED), inputs)
    y = tvm.runtime.tensor(np.zeros((rows * USED, spec.each.width), np.float32))

    dense_spec = LinearSpec(fmt, inputs, round(statistics.mean(used)) * outputs, gated=gated)
    dense = build(linear(dense_spec, isa), target)
    matrices = [random_bytes(rng, fmt, dense_spec.outputs, inputs) for _ in range(max(2, COUNT // (USED * rows)))]
    # As many rows of inputs as an expert in use has of them on average, so that both do about the same arithmetic.
    each = max(1, round(rows * USED / statistics.mean(used)))
    dense_x = inputs_of(rng, fmt, each, inputs)
    dense_y = tvm.runtime.tensor(np.zeros((each, dense_spec.width), np.float32))

    found: list[tuple[float, float]] = []
    for i, chosen in enumerate(routes):
        order = order_of(chosen)
        sparse = timed(partial(kernel, *x, *order, matrix, y))
        found.append((sparse, timed(partial(dense, *dense_x, matrices[i % len(matrices)], dense_y))))
    block = int(np.prod(packed_shape(fmt, (outputs, inputs)))) * packed_dtype(fmt).itemsize
    size = statistics.mean(used) * block
    of_experts, of_dense = (statistics.median(times) for times in zip(*found, strict=True))
    name = "gate, up" if gated else "down"
    print(
        f"{fmt.value:6} {name:9} {rows:4} rows, {statistics.mean(used):5.1f} experts in use, {size / 1e6:6.1f} MB: "
        f"{of_experts * 1e6:8.0f} us ({size / of_experts / 1e9:5.1f} GB/s); dense {of_dense * 1e6:8.0f} us "
        f"({size / of_dense / 1e9:5.1f} GB/s); all {COUNT} experts would be {COUNT * block / 1e6:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", default="native")
    parser.add_argument("--format", nargs="*", default=["q4", "mxfp4"], choices=[fmt.value for fmt in Format])
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 4, 16])
    arguments = parser.parse_args()
    target = resolve(TargetConfig(cpu=arguments.cpu))
    assert isinstance(target, CpuTarget)
    for fmt in map(Format, arguments.format):
        for rows in arguments.rows:
            for gated in (True, False):
                measure(target, fmt, rows, gated)


if __name__ == "__main__":
    main()
