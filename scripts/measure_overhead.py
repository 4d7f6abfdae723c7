"""Measure what HTTP adds to the engine: time to first token, many streams, and Python's share of a token.

Server and engine run the same model with the same options, by turns: who is not measured is frozen or idle. What a
token costs is processor time of the server's own thread, so that a busy machine hardly disturbs it; it is taken on the
scripted model, at two lengths, so that what a request costs by itself falls out.

    python scripts/measure_overhead.py [--model smollm2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from collections.abc import Sequence

import psutil  # type: ignore[import-untyped]
import uvloop

from cupola.bench.client import Client
from cupola.bench.engine_target import EngineTarget
from cupola.bench.prompts import VOCABULARY
from cupola.bench.sample import Sample
from cupola.bench.server_target import ServerTarget, first_answer
from cupola.bench.spawned import SpawnedServer
from cupola.bench.target import Target
from cupola.engine.async_engine import AsyncEngine
from cupola.engine.options import EngineOptions

STREAMS, STREAM_TOKENS = 32, 128
PROMPT_WORDS, SINGLE_REQUESTS = 32, 20
SHORT, LONG = 64, 1024  # tokens, on the scripted model
SCRIPTED = "scripted:step_us=2000"


def prompts(count: int) -> list[str]:
    """Random ones, so that none is found in the prefix cache."""
    return [" ".join(random.choices(VOCABULARY, k=PROMPT_WORDS)) for _ in range(count)]


async def first_token_ms(target: Target) -> float:
    """The median of requests one after the other."""
    samples = [await target.generate(prompt, 1) for prompt in prompts(SINGLE_REQUESTS)]
    return statistics.median(sample.first_token_seconds for sample in samples) * 1e3


async def streams_seconds(target: Target, tokens: int) -> float:
    """From the first request to the last answer."""
    texts = prompts(STREAMS)
    samples: list[Sample] = await asyncio.gather(*(target.generate(text, tokens) for text in texts))
    return max(sample.end for sample in samples) - min(sample.start for sample in samples)


async def compare(model: str, rounds: int) -> None:
    """The engine in this process against a server, round by round."""
    options = EngineOptions(max_batch=STREAMS, max_context=2048)
    command = f"{sys.executable} -m cupola serve {model} --port {{port}} --max-batch {STREAMS} --max-context 2048"
    async with await AsyncEngine.open(model, config=options) as engine:
        with SpawnedServer(command) as spawned:
            client = Client(spawned.url)
            await first_answer(spawned, client, "Hello")
            await client.connect()
            server = ServerTarget("HTTP", client, server=spawned)
            first: list[float] = []
            times: list[float] = []
            for number in range(rounds + 1):
                spawned.suspend()
                direct = EngineTarget("engine", engine)
                alone = await first_token_ms(direct), await streams_seconds(direct, STREAM_TOKENS)
                spawned.resume()
                served = await first_token_ms(server), await streams_seconds(server, STREAM_TOKENS)
                if number:  # the first round warms up
                    first.append(served[0] - alone[0])
                    times.append(served[1] / alone[1])
    print(f"time to first token, p50, added by HTTP: {_spread(first)} ms (wanted: at most 3)")
    print(f"{STREAMS} streams of {STREAM_TOKENS} tokens, HTTP / engine: {_spread(times)} (wanted: at most 1.15)")


async def token_cost(rounds: int) -> None:
    """Processor time of the server's thread for each token of each stream."""
    command = f"{sys.executable} -m cupola serve {SCRIPTED} --port {{port}} --max-batch {STREAMS} --max-context 2048"
    with SpawnedServer(command) as spawned:
        client = Client(spawned.url)
        await first_answer(spawned, client, "Hello")
        await client.connect()
        server = ServerTarget("HTTP", client, server=spawned)
        process = psutil.Process(spawned.pid)
        costs: list[tuple[float, float]] = []
        for _ in range(rounds):
            spent = []
            for tokens in (SHORT, LONG):
                before = _main_thread(process)
                await streams_seconds(server, tokens)
                spent.append([b - a for a, b in zip(before, _main_thread(process), strict=True)])
            each = (LONG - SHORT) * STREAMS
            user, system = ((long - short) / each * 1e6 for short, long in zip(*spent, strict=True))
            costs.append((user, system))
    user, system = zip(*costs, strict=True)
    print(f"a token of a stream, Python and event loop: {_spread(user)} us (wanted: at most 12)")
    print(f"a token of a stream, system calls: {_spread(system)} us")


def _main_thread(process: psutil.Process) -> tuple[float, float]:
    """Seconds in user and in system mode."""
    thread = next(thread for thread in process.threads() if thread.id == process.pid)
    return thread.user_time, thread.system_time


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-cost", action="store_true", help="only what a token costs")
    arguments = parser.parse_args()
    uvloop.run(token_cost(arguments.rounds))
    if not arguments.only_cost:
        uvloop.run(compare(arguments.model, arguments.rounds))


if __name__ == "__main__":
    main()
