"""The workloads: what is asked of a target in one round, and which figures come out of it.

Each takes its prompts from `Prompts`, so that every target gets the same ones, and none gets one twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass

from cupola.bench.prompts import Prompts
from cupola.bench.report import Bound
from cupola.bench.sample import Sample
from cupola.bench.spawned import resident_bytes
from cupola.bench.statistics import percentile
from cupola.bench.target import Target
from cupola.errors import UsageError

DECODE_PROMPT, DECODE_TOKENS = 32, 128
PREFILL_PROMPTS = (32, 512, 2048)
CLIENTS = (1, 4, 16)
CLIENT_PROMPT, CLIENT_TOKENS = 128, 128
PREFIX_TOKENS, QUESTION_TOKENS, PREFIX_CLIENTS, PREFIX_ANSWER = 1000, 24, 8, 32
STREAMS, STREAM_PROMPT, STREAM_TOKENS, INTRUDER_PROMPT = 8, 32, 512, 4096

_MS = 1e3


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a workload; `bound` is the limit of the machine that a rate of tokens may be a share of."""

    name: str
    unit: str
    higher_is_better: bool = False
    bound: Bound | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work.

    Args:
        group: what users call it on the command line.
        title: what the report calls it.
        metrics: the figures of a round; `measure` gives their values in this order.
        possible: whether a target can be measured so.
    """

    group: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Target, Prompts], Coroutine[None, None, tuple[float, ...]]]
    possible: Callable[[Target], bool] = lambda _: True


async def _decode(target: Target, prompts: Prompts) -> tuple[float, ...]:
    sample = await target.generate(prompts.take(DECODE_PROMPT), DECODE_TOKENS)
    return (sample.decode_rate,)


async def _decode_beside_another(target: Target, prompts: Prompts) -> tuple[float, ...]:
    with _busy_core():
        return await _decode(target, prompts)


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    """Another process that never waits, as long as the block lasts."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _prefill(tokens: int) -> Workload:
    async def measure(target: Target, prompts: Prompts) -> tuple[float, ...]:
        sample = await target.generate(prompts.take(tokens), 1)
        return sample.first_token_seconds * _MS, sample.prompt_tokens / sample.first_token_seconds

    metrics = (Metric("time to first token", "ms"), Metric("prompt tokens", "tokens/s", True, Bound.ARITHMETIC))
    return Workload("prefill", f"prompt of {tokens} tokens", metrics, measure)


def _clients(count: int) -> Workload:
    async def measure(target: Target, prompts: Prompts) -> tuple[float, ...]:
        texts = [prompts.take(CLIENT_PROMPT) for _ in range(count)]
        samples = await _at_once([target.generate(text, CLIENT_TOKENS) for text in texts])
        first = [sample.first_token_seconds * _MS for sample in samples]
        gaps = [gap * _MS for sample in samples for gap in sample.gaps]
        rate = sum(sample.completion_tokens for sample in samples) / _span(samples)
        return rate, percentile(first, 50), percentile(first, 99), percentile(gaps, 50), percentile(gaps, 99)

    metrics = (
        Metric("output tokens", "tokens/s", higher_is_better=True),
        Metric("time to first token, p50", "ms"),
        Metric("time to first token, p99", "ms"),
        Metric("between tokens, p50", "ms"),
        Metric("between tokens, p99", "ms"),
    )
    plural = "client" if count == 1 else "clients"
    return Workload("clients", f"{count} {plural}, {CLIENT_PROMPT} in, {CLIENT_TOKENS} out", metrics, measure)


async def _shared_prefix(target: Target, prompts: Prompts) -> tuple[float, ...]:
    """One prefix cold and warm, then several clients at once behind another, cold one."""
    prefix = prompts.take(PREFIX_TOKENS)
    first = []
    for _ in range(2):
        sample = await target.generate(f"{prefix} {prompts.take(QUESTION_TOKENS)}", 1, reuse_prefix=True)
        first.append(sample.first_token_seconds * _MS)
    prefix = prompts.take(PREFIX_TOKENS)
    texts = [f"{prefix} {prompts.take(QUESTION_TOKENS)}" for _ in range(PREFIX_CLIENTS)]
    samples = await _at_once([target.generate(text, PREFIX_ANSWER, reuse_prefix=True) for text in texts])
    return first[0], first[1], _span(samples)


async def _intrusion(target: Target, prompts: Prompts) -> tuple[float, ...]:
    """A long prompt alone, streams alone, and then the two together, the prompt once all streams are on their way."""

    def streams() -> list[Coroutine[None, None, Sample]]:
        return [target.generate(prompts.take(STREAM_PROMPT), STREAM_TOKENS) for _ in range(STREAMS)]

    async def intrude(pause: float) -> Sample:
        await asyncio.sleep(pause)
        return await target.generate(prompts.take(INTRUDER_PROMPT), 1)

    alone = await intrude(0.0)
    quiet = await _at_once(streams())
    pause = 2 * max(sample.first_token_seconds for sample in quiet)
    intruder, *disturbed = await _at_once([intrude(pause), *streams()])
    quiet_gaps = _gaps(quiet, max(sample.arrivals[0] for sample in quiet), min(sample.end for sample in quiet))
    gaps = _gaps(disturbed, intruder.start, intruder.arrivals[0])
    waits = percentile(quiet_gaps, 99), percentile(gaps, 99)
    first = alone.first_token_seconds, intruder.first_token_seconds
    return (*(wait * _MS for wait in waits), _times(*waits), *first, _times(*first))


def _gaps(samples: Sequence[Sample], begin: float, end: float) -> list[float]:
    return [gap for sample in samples for gap in sample.gaps_within(begin, end)]


def _times(before: float, after: float) -> float:
    return after / before if before else 0.0


async def _start(target: Target, prompts: Prompts) -> tuple[float, ...]:
    start = await target.measure_start(prompts.take(DECODE_PROMPT))
    return start.seconds, start.resident_bytes / 1e6


async def _memory(target: Target, _: Prompts) -> tuple[float, ...]:
    assert target.pid is not None
    return (resident_bytes(target.pid) / 1e6,)


async def _at_once(requests: Sequence[Coroutine[None, None, Sample]]) -> list[Sample]:
    """All requests at the same time; the first failure ends the others."""
    tasks = [asyncio.create_task(request) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _span(samples: Sequence[Sample]) -> float:
    """Seconds from the first request to the last answer."""
    return max(sample.end for sample in samples) - min(sample.start for sample in samples)


WORKLOADS = (
    Workload("decode", "decode, one stream", (Metric("rate", "tokens/s", True, Bound.MEMORY),), _decode),
    Workload(
        "busy", "decode, one stream beside a busy process", (Metric("rate", "tokens/s", True),), _decode_beside_another
    ),
    *(_prefill(tokens) for tokens in PREFILL_PROMPTS),
    *(_clients(count) for count in CLIENTS),
    Workload(
        "prefix",
        f"one prefix of {PREFIX_TOKENS} tokens",
        (
            Metric("time to first token, cold", "ms"),
            Metric("time to first token, warm", "ms"),
            Metric(f"{PREFIX_CLIENTS} clients at once, {PREFIX_ANSWER} out, cold", "s"),
        ),
        _shared_prefix,
    ),
    Workload(
        "intrusion",
        f"a prompt of {INTRUDER_PROMPT} tokens among {STREAMS} streams",
        (
            Metric("between tokens of the streams, p99, before", "ms"),
            Metric("between tokens of the streams, p99, during", "ms"),
            Metric("during / before", "times"),
            Metric("time to first token of the prompt, alone", "s"),
            Metric("time to first token of the prompt, among streams", "s"),
            Metric("among streams / alone", "times"),
        ),
        _intrusion,
    ),
    Workload(
        "start",
        "start of the server",
        (Metric("to the first token", "s"), Metric("memory then", "MB")),
        _start,
        lambda target: target.can_start,
    ),
    Workload("memory", "memory", (Metric("resident", "MB"),), _memory, lambda target: target.pid is not None),
)

GROUPS = tuple(dict.fromkeys(workload.group for workload in WORKLOADS))


def check_groups(groups: Sequence[str]) -> None:
    """UsageError unless there are workloads of each of these groups."""
    for group in groups:
        if group not in GROUPS:
            raise UsageError(f"There is no workload `{group}`", hint=f"Choose of {', '.join(GROUPS)}.")


def choose_workloads(groups: Sequence[str], targets: Sequence[Target]) -> tuple[Workload, ...]:
    """The workloads of these groups (all, if none is named) that every target can do.

    Raises:
        UsageError: no workload is left.
    """
    chosen = tuple(
        workload
        for workload in WORKLOADS
        if (not groups or workload.group in groups) and all(workload.possible(target) for target in targets)
    )
    if not chosen:
        raise UsageError(
            f"Nothing of {', '.join(groups)} can be measured here",
            hint="`start` needs a server that the benchmark starts, `memory` one whose process is known.",
        )
    return chosen
