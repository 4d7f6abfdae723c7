"""Speed of a model in process: decode and prefill of one stream, and decode of several, through the public `Engine`.

    python scripts/bench.py [MODEL] [--rounds 5] [--streams 1 4 16] [--json FILE]

Each figure is the median of its rounds; the least and the greatest stand beside it, because a median alone hides a busy
machine. No round reuses a prompt, so that no cache of prefixes can help.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from cupola import Engine, SamplingParams, __version__

DECODE_TOKENS = 128
PROMPT_TOKENS = 512
DECODE_PROMPT = 32


@dataclass(frozen=True, slots=True)
class Figure:
    """Tokens per second of one kind of work: median, least and greatest of its rounds."""

    work: str
    median: float
    least: float
    greatest: float


class Bench:
    """Runs rounds on one engine with prompts of random ids."""

    def __init__(self, engine: Engine, rounds: int) -> None:
        self._engine = engine
        self._rounds = rounds
        self._random = np.random.default_rng(0)

    def prompt(self, tokens: int) -> list[int]:
        """Ids past those that tokenizers usually reserve."""
        vocabulary = self._engine.manifest.shape.vocab_size
        return self._random.integers(vocabulary // 16, vocabulary, tokens).tolist()

    def prefill(self) -> Figure:
        """Prompt tokens per second up to the first token of the answer."""
        params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)

        def once() -> float:
            prompt = self.prompt(PROMPT_TOKENS)
            start = time.perf_counter()
            self._engine.generate([prompt], params)
            return PROMPT_TOKENS / (time.perf_counter() - start)

        return self._figure(f"prefill, {PROMPT_TOKENS} tokens", once)

    def decode_one(self) -> Figure:
        """Tokens per second of one stream, from its first token to its last."""
        params = SamplingParams(temperature=0, max_tokens=DECODE_TOKENS, ignore_eos=True)

        def once() -> float:
            first, count = 0.0, 0
            for delta in self._engine.stream(self.prompt(DECODE_PROMPT), params):
                count += len(delta.token_ids)
                if count and not first:
                    first, at_first = time.perf_counter(), count
            return (count - at_first) / (time.perf_counter() - first)

        return self._figure(f"decode, 1 stream, {DECODE_TOKENS} tokens", once)

    def decode_many(self, streams: int) -> Figure:
        """Generated tokens per second over all streams, their short prefill included."""
        params = SamplingParams(temperature=0, max_tokens=DECODE_TOKENS, ignore_eos=True)

        def once() -> float:
            prompts = [self.prompt(DECODE_PROMPT) for _ in range(streams)]
            start = time.perf_counter()
            self._engine.generate(prompts, params)
            return streams * DECODE_TOKENS / (time.perf_counter() - start)

        return self._figure(f"decode, {streams} streams, {DECODE_TOKENS} tokens", once)

    def _figure(self, work: str, once: Callable[[], float]) -> Figure:
        once()
        rates = [once() for _ in range(self._rounds)]
        return Figure(work, round(statistics.median(rates), 1), round(min(rates), 1), round(max(rates), 1))


def machine() -> str:
    """Processor, number of cores, system."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {platform.system()}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of a model in process.")
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="*", default=[4, 16], help="batches beside the single stream")
    parser.add_argument("--json", type=Path, help="file for the same figures")
    arguments = parser.parse_args()
    with Engine(arguments.model) as engine:
        bench = Bench(engine, arguments.rounds)
        figures = [bench.decode_one(), *(bench.decode_many(n) for n in arguments.streams), bench.prefill()]
        title = f"{engine.model_name} ({engine.manifest.scheme}), Cupola {__version__}"
    table = Table("work", "tokens/s", "least", "greatest", title=title, caption=machine())
    for figure in figures:
        table.add_row(figure.work, str(figure.median), str(figure.least), str(figure.greatest))
    Console().print(table)
    report = {"model": title, "machine": machine(), "rounds": arguments.rounds, "figures": [asdict(f) for f in figures]}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
