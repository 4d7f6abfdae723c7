"""Runs workloads on one or two targets, round by round, and makes the report.

In a round every workload runs on every target, one right after the other, with the same prompts; who comes first
changes with each round. Whoever is not being measured is suspended, where that is possible.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cupola import __version__
from cupola.bench.limits import BUFFER_BYTES, Bandwidth, measure_bandwidth, measure_integer_peak
from cupola.bench.load import OtherLoad
from cupola.bench.machine import this_machine
from cupola.bench.prompts import Length, Prompts, measure_length
from cupola.bench.report import Bound, Figure, Limits, Report
from cupola.bench.statistics import Spread, ratios
from cupola.bench.target import Target
from cupola.bench.workloads import DECODE_PROMPT, DECODE_TOKENS, Workload

OnMeasured = Callable[[str], None]

_ATTEMPTS = 6
_PATIENCE = 12.0  # seconds after which a measurement is not tried again
_WARM_UP = (512, 16)  # tokens of the prompt and of the answer that come before all rounds


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Args:
        threads: for the measurement of the machine's limits; 0 means one a core.
        quiet: what was measured while other processes kept more cores busy than that is measured again, a few times
            at most and not if it takes long; infinite: never.
        buffer_bytes: for the bandwidth; far more than the caches hold, or it is theirs that is measured.
        integer_peak: measures that of so many threads.
    """

    targets: tuple[Target, ...]
    workloads: tuple[Workload, ...]
    rounds: int = 3
    seed: int = 0
    threads: int = 0
    quiet: float = math.inf
    buffer_bytes: int = BUFFER_BYTES
    integer_peak: Callable[[int], float | None] = measure_integer_peak


@dataclass(frozen=True, slots=True)
class _Measured:
    """One workload on one target: its metrics, and the cores that others kept busy meanwhile."""

    values: tuple[float, ...]
    other_load: float


@dataclass(slots=True)
class _Record:
    """What has been measured so far; `values` by workload's title and target's place, a tuple of metrics a round."""

    values: dict[tuple[str, int], list[tuple[float, ...]]] = field(default_factory=dict)
    bandwidth: list[Bandwidth] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    other_load: dict[str, list[float]] = field(default_factory=dict)


async def measure(plan: Plan, on_measured: OnMeasured) -> Report:
    """Run a plan; `on_measured` is told the workload after each measurement.

    Raises:
        CupolaError: a target refused, failed or went away.
    """
    record = _Record()
    length = await measure_length(plan.targets[0], plan.seed)
    with _all_suspended(plan.targets):
        await _warm_up(plan, length)
        for place in range(plan.rounds):
            _measure_limits(plan, record)
            await _round(plan, place, length, record, on_measured)
    return _report(plan, record)


def _measure_limits(plan: Plan, record: _Record) -> None:
    record.bandwidth.append(measure_bandwidth(plan.threads, plan.buffer_bytes))
    if any(metric.bound is Bound.ARITHMETIC for workload in plan.workloads for metric in workload.metrics):
        peak = plan.integer_peak(plan.threads)
        record.peak.extend([] if peak is None else [peak])


async def _warm_up(plan: Plan, length: Length) -> None:
    prompt_tokens, tokens = _WARM_UP
    for target in plan.targets:
        with _running(target):
            await target.generate(Prompts(f"{plan.seed}/warm-up", length).take(prompt_tokens), tokens)


async def _round(plan: Plan, place: int, length: Length, record: _Record, on_measured: OnMeasured) -> None:
    order = list(range(len(plan.targets)))
    if place % 2:
        order.reverse()
    for workload in plan.workloads:
        kept = await _quietest(plan, workload, place, order, length)
        for index, measured in kept.items():
            record.values.setdefault((workload.title, index), []).append(measured.values)
            record.other_load.setdefault(workload.title, []).append(measured.other_load)
            on_measured(workload.title)


async def _quietest(
    plan: Plan, workload: Workload, place: int, order: Sequence[int], length: Length
) -> dict[int, _Measured]:
    """Measure all targets until nobody else kept the machine busy, and give those of the quietest attempt."""
    attempts: list[dict[int, _Measured]] = []
    deadline = time.monotonic() + _PATIENCE
    while True:
        attempts.append({})
        for index in order:
            # New prompts for each attempt, the same for all targets.
            prompts = Prompts(f"{plan.seed}/{workload.title}/{place}/{len(attempts)}", length)
            attempts[-1][index] = await _measure_one(plan, index, workload, prompts)
        best = min(attempts, key=_load_of)
        if _load_of(best) <= plan.quiet or len(attempts) == _ATTEMPTS or time.monotonic() > deadline:
            return best


async def _measure_one(plan: Plan, index: int, workload: Workload, prompts: Prompts) -> _Measured:
    target = plan.targets[index]
    with _running(target):
        await target.generate("Hello", 1)  # whoever was frozen has timers to catch up with
        load = OtherLoad([target.pid for target in plan.targets if target.pid is not None])
        values = await workload.measure(target, prompts)
        return _Measured(values, load.cores())


def _load_of(attempt: dict[int, _Measured]) -> float:
    return max(measured.other_load for measured in attempt.values())


@contextlib.contextmanager
def _all_suspended(targets: Sequence[Target]) -> Iterator[None]:
    try:
        for target in targets:
            target.suspend()
        yield
    finally:
        for target in targets:
            target.resume()


@contextlib.contextmanager
def _running(target: Target) -> Iterator[None]:
    target.resume()
    try:
        yield
    finally:
        target.suspend()


def _report(plan: Plan, record: _Record) -> Report:
    limits = Limits(
        threads=plan.threads or os.cpu_count() or 1,
        read=Spread.of([bandwidth.read for bandwidth in record.bandwidth]),
        copy_=Spread.of([bandwidth.copy for bandwidth in record.bandwidth]),
        peak=Spread.of(record.peak) if record.peak else None,
    )
    return Report(
        cupola=__version__,
        machine=this_machine(),
        seed=plan.seed,
        rounds=plan.rounds,
        targets=tuple(target.name for target in plan.targets),
        limits=limits,
        figures=tuple(
            _figure(plan, record, workload, place, limits)
            for workload in plan.workloads
            for place in range(len(workload.metrics))
        ),
    )


def _figure(plan: Plan, record: _Record, workload: Workload, place: int, limits: Limits) -> Figure:
    metric = workload.metrics[place]
    limit = None if metric.bound is None else limits.of(metric.bound)
    values = tuple(
        tuple(values[place] for values in record.values[workload.title, index]) for index in range(len(plan.targets))
    )
    spread = tuple(Spread.of(of_target) for of_target in values)
    achieved = tuple(
        _achieved(target, metric.bound, each.median) for target, each in zip(plan.targets, spread, strict=True)
    )
    return Figure(
        workload=workload.title,
        metric=metric.name,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        values=values,
        spread=spread,
        ratio=ratios(*values) if len(values) == 2 else None,
        other_load=Spread.of(record.other_load[workload.title]),
        bound=metric.bound,
        achieved=achieved,
        share=tuple(None if rate is None or limit is None else rate / limit for rate in achieved),
    )


def _achieved(target: Target, bound: Bound | None, tokens: float) -> float | None:
    """Bytes or operations a second that so many tokens a second take; None if not known.

    A decoded token reads the weights, and a context that is half grown on average.
    """
    if bound is None or target.cost is None:
        return None
    if bound is Bound.ARITHMETIC:
        return target.cost.operations * tokens or None
    return target.cost.bytes_behind(DECODE_PROMPT + DECODE_TOKENS / 2) * tokens
