"""Measure what the engine itself costs per step, on the scripted model with short contexts and a tiny
vocabulary.

The figure contains the scripted model's own work (one short hash and one short row a request), so it is an upper
bound of schedule, sample, commit and publish together.

    python scripts/measure_engine.py
"""

from __future__ import annotations

import select
import statistics

from cupola.engine.native import NativeEngine, scripted
from cupola.engine.request import EngineConfig, EngineStats, GenerateRequest, SamplingParams

STEPS = 256
REPEATS = 7


def run_batch(engine: NativeEngine, batch: int, first_id: int) -> EngineStats:
    """Generate STEPS tokens for `batch` requests at once; the statistics afterwards."""
    for i in range(batch):
        engine.add(GenerateRequest(first_id + i, (i % 16,), SamplingParams(temperature=0.0, seed=i, max_tokens=STEPS)))
    ended = 0
    while ended < batch:
        select.select([engine.event_fd], [], [])
        ended += sum(delta.finish_reason is not None for delta in engine.take())
    return engine.stats()


def measure(batch: int) -> list[float]:
    """Microseconds a step, once a repeat."""
    config = EngineConfig(num_pages=batch * 20, max_batch=batch, max_step_tokens=max(512, batch))
    engine = NativeEngine(scripted(vocab_size=32, num_ids=32), config)
    before = run_batch(engine, batch, 0)
    costs = []
    for repeat in range(1, REPEATS + 1):
        after = run_batch(engine, batch, repeat * batch)
        costs.append((after.step_seconds - before.step_seconds) / (after.steps - before.steps) * 1e6)
        before = after
    engine.close()
    return costs


def main() -> None:
    """Print one line a batch size."""
    for batch in (1, 64, 256):
        costs = measure(batch)
        print(f"batch {batch:4}: {statistics.median(costs):6.1f} us a step (lowest {min(costs):.1f})")


if __name__ == "__main__":
    main()
