"""The physical limits of the machine: what a figure of the model is a share of.

Memory's bandwidth is measured with NumPy in this process. The integer peak needs a kernel, which only the compiler
can make; it does so in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psutil  # type: ignore[import-untyped]

BUFFER_BYTES = 512 << 20  # far more than any cache of a small machine
_PASSES = 16  # single ones differ by a factor of two on a virtual machine
_PEAK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Memory bandwidth in bytes a second: reading alone, and copying (bytes read and bytes written together)."""

    read: float
    copy: float


def measure_bandwidth(threads: int, buffer_bytes: int = BUFFER_BYTES) -> Bandwidth:
    """Walk through a large buffer with so many threads (0: one a core); the best of some passes.

    Two buffers are taken, each at most an eighth of the available memory. Takes about two seconds.
    """
    count = threads or os.cpu_count() or 1
    size = min(buffer_bytes, psutil.virtual_memory().available // 8) // 8 // count * count
    source = np.ones(size, np.uint64)
    target = np.zeros(size, np.uint64)
    parts = list(zip(np.split(source, count), np.split(target, count), strict=True))
    with ThreadPoolExecutor(count) as pool:

        def rate(work: Callable[[tuple[np.ndarray, np.ndarray]], object], moved: int) -> float:
            best = float("inf")
            for _ in range(_PASSES):
                begin = time.perf_counter()
                list(pool.map(work, parts))
                best = min(best, time.perf_counter() - begin)
            return moved / best

        # A bitwise or needs one instruction for each load, so that memory is what limits it.
        read = rate(lambda part: np.bitwise_or.reduce(part[0]), source.nbytes)
        copy = rate(lambda part: np.copyto(part[1], part[0]), 2 * source.nbytes)
    return Bandwidth(read, copy)


def measure_integer_peak(threads: int) -> float | None:
    """8-bit multiplications and additions a second of so many threads (0: one a core); None where that cannot be had.

    Takes a few seconds.
    """
    command = [sys.executable, "-m", "cupola.compiler.peak", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PEAK_SECONDS, check=True)
        return float(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
