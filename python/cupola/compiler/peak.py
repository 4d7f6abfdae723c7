"""The integer peak of this machine: how many 8-bit multiplications and additions a second its processor can do.

    python -m cupola.compiler.peak THREADS

prints operations a second (a multiplication and an addition are two) of the best dot-product instruction that Cupola
has a word for, on so many threads (0: one a core). It is a program because the benchmark, which prints shares of this
peak, must neither import TVM nor have TVM's threads in its process.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

_BURSTS = 40  # of about 2 ms; the best one counts, because others may use the machine


def measure_peak(threads: int) -> float:
    """Operations a second of so many threads. TVM's pool must have at least as many (TVM_NUM_THREADS)."""
    import tvm

    from cupola.compiler import pipeline
    from cupola.compiler.cpu_target import resolve_cpu
    from cupola.kernels.cpu.isa import BY_NAME
    from cupola.kernels.cpu.peak import data_bytes, operations, output_shape, peak_kernel

    target = resolve_cpu("native", "auto")
    isa = BY_NAME[target.isa]
    function = peak_kernel(threads, isa).with_attr("global_symbol", "peak")
    pipeline.register()
    module = tvm.tirx.build(
        tvm.IRModule({"peak": function}), target=target.tvm_target(), pipeline=pipeline.CPU_PIPELINE
    )
    data = tvm.runtime.tensor(np.random.default_rng(0).integers(0, 128, data_bytes(isa), np.uint8))
    out = tvm.runtime.tensor(np.zeros(output_shape(threads, isa), np.uint8))
    best = float("inf")
    for _ in range(_BURSTS):
        begin = time.perf_counter()
        module["peak"](data, out)
        best = min(best, time.perf_counter() - begin)
    return threads * operations(isa) / best


def main() -> None:
    threads = int(sys.argv[1]) or os.cpu_count() or 1
    os.environ["TVM_NUM_THREADS"] = str(threads)
    print(measure_peak(threads))


if __name__ == "__main__":
    main()
