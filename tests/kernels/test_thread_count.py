"""Results do not depend on how many threads share a kernel's loops."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator

import pytest
import tvm

from cupola.kernels.cpu.isa import Isa
from kernels import kernel_cases
from kernels.kernel_cases import Arguments, Case
from kernels.kernel_driver import INSTRUCTION_SETS, build

THREADS = (1, 2, 3)
GIVEN_PROCESSORS = -2  # a mode of TVM's pool: as many threads as processors are named, on these


def all_cases(isa: Isa) -> Iterator[Case]:
    yield from kernel_cases.linear_cases(isa)
    yield from kernel_cases.activation_cases()
    yield from kernel_cases.row_cases()
    yield from kernel_cases.position_cases()
    yield from kernel_cases.attention_cases(isa)


CASES = {case.name: case for case in all_cases(INSTRUCTION_SETS[-1])}


def with_threads(kernel: Callable[..., None], case: Case, count: int) -> list[Arguments]:
    """Results of all calls of a case, made from a thread whose pool has `count` threads."""
    calls = copy.deepcopy(case.calls)
    sizes = []

    def run() -> None:
        # A pool belongs to the thread that calls it, and is made once.
        tvm.get_global_func("runtime.config_threadpool")(GIVEN_PROCESSORS, count, ["0"] * count)
        sizes.append(tvm.get_global_func("runtime.NumThreads")())
        for call in calls:
            kernel(*call)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert sizes == [count]
    return [call[case.inputs :] for call in calls]


@pytest.mark.parametrize("name", CASES)
def test_same_bits_with_any_number_of_threads(name: str) -> None:
    case = CASES[name]
    kernel = build(case.function)
    alone, *others = (with_threads(kernel, case, count) for count in THREADS)
    for count, results in zip(THREADS[1:], others, strict=True):
        for call, expected in zip(results, alone, strict=True):
            for array, wanted in zip(call, expected, strict=True):
                assert array.tobytes() == wanted.tobytes(), f"{len(array)} rows on {count} threads"
    assert any(array.any() for call in alone for array in call)
