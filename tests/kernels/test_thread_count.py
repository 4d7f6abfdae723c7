"""Results do not depend on how many threads share a kernel's loops."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

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


def make_pool(count: int) -> None:
    """Give the calling thread a pool of so many threads. It lives as long as the thread."""
    tvm.get_global_func("runtime.config_threadpool")(GIVEN_PROCESSORS, count, ["0"] * count)
    assert tvm.get_global_func("runtime.NumThreads")() == count


@pytest.fixture(scope="module")
def callers() -> Iterator[list[ThreadPoolExecutor]]:
    """A thread for each of `THREADS`, with its pool."""
    with ExitStack() as stack:
        yield [stack.enter_context(ThreadPoolExecutor(1, initializer=make_pool, initargs=(n,))) for n in THREADS]


def results_of(kernel: Callable[..., None], case: Case) -> list[Arguments]:
    """Results of all calls of a case."""
    calls = copy.deepcopy(case.calls)
    for call in calls:
        kernel(*call)
    return [call[case.inputs :] for call in calls]


@pytest.mark.parametrize("name", CASES)
def test_same_bits_with_any_number_of_threads(name: str, callers: list[ThreadPoolExecutor]) -> None:
    case = CASES[name]
    kernel = build(case.function)
    alone, *others = (caller.submit(results_of, kernel, case).result() for caller in callers)
    for count, results in zip(THREADS[1:], others, strict=True):
        for call, expected in zip(results, alone, strict=True):
            for array, wanted in zip(call, expected, strict=True):
                assert array.tobytes() == wanted.tobytes(), f"{len(array)} rows on {count} threads"
    assert any(array.any() for call in alone for array in call)
