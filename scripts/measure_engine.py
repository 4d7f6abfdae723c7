"""Measure what the engine itself costs: a step on the scripted model, and a look into a large prefix cache.

The first figures are processor time of the engine's thread, so that a busy machine does not disturb them. They contain
the scripted model's own work (one short hash and one short row a request) and are upper bounds of schedule, sample,
commit and publish together.

    python scripts/measure_engine.py
"""

from __future__ import annotations

import select
import statistics
from pathlib import Path

from cupola.engine.native import NativeEngine, scripted
from cupola.engine.native_library import native
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams

STEPS = 256
REPEATS = 9
NODES, PROMPT_TOKENS, PAGE_SIZE, PROMPTS = 100_000, 4096, 16, 64


def engine_seconds() -> float:
    """Processor time that the engine's thread has taken so far."""
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == "cupola-engine":
            return int((task / "schedstat").read_text().split()[0]) * 1e-9
    raise RuntimeError("there is no engine thread")


def run_batch(engine: NativeEngine, batch: int, first_id: int) -> None:
    """Generate STEPS tokens for `batch` requests at once; two of them always have the same text."""
    for i in range(batch):
        prompt = (i // 2,)
        engine.add(GenerateRequest(first_id + i, prompt, SamplingParams(temperature=0.0, seed=i, max_tokens=STEPS)))
    ended = 0
    while ended < batch:
        select.select([engine.event_fd], [], [])
        ended += sum(delta.finish_reason is not None for delta in engine.take())


def step_costs(batch: int) -> list[float]:
    """Microseconds of processor time a step, once a repeat."""
    config = EngineConfig(num_pages=batch * 40, max_batch=batch, max_step_tokens=max(512, batch))
    engine = NativeEngine(scripted(vocab_size=128, num_ids=32), config)
    run_batch(engine, batch, 0)
    costs = []
    for repeat in range(1, REPEATS + 1):
        steps, seconds = engine.stats().steps, engine_seconds()
        run_batch(engine, batch, repeat * batch)
        costs.append((engine_seconds() - seconds) / (engine.stats().steps - steps) * 1e6)
    engine.close()
    return costs


def main() -> None:
    """Print one line a figure."""
    for batch in (1, 64, 256):
        costs = step_costs(batch)
        print(f"a step of {batch:4} requests: {statistics.median(costs):6.1f} us (lowest {min(costs):.1f})")
    nanoseconds = list(native("testing.measure_find")(NODES, PROMPT_TOKENS, PAGE_SIZE, PROMPTS))
    print(
        f"a prompt of {PROMPT_TOKENS} tokens in a prefix cache of {NODES} nodes: "
        f"{statistics.median(nanoseconds) / 1e3:6.1f} us (lowest {min(nanoseconds) / 1e3:.1f})"
    )


if __name__ == "__main__":
    main()
