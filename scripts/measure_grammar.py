"""Measure what grammars cost: 32 requests at once on the real model, free and constrained, in turn.

    python scripts/measure_grammar.py [MODEL]

"text" is a grammar that forces nothing (a long JSON string), so that every token is sampled under a mask of nearly the
whole vocabulary: its step may cost at most a tenth more than a free one. "records" is JSON of many small objects, where
forced tokens save steps; what counts there is the time a token takes.

Processor time of the engine's two threads, with the model on one of them, so that others who use the machine change
little; lowest of several rounds. The helper fills masks while the model computes: where it has a core of its own, only
the engine's part is to be waited for.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from cupola import Engine, EngineOptions, GrammarSpec, SamplingParams

REQUESTS = 32
TOKENS = 48
ROUNDS = 4
ENGINE_THREAD, GRAMMAR_THREAD = "cupola-engine", "cupola-grammar"

RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "temperature_celsius": {"type": "integer", "minimum": -40, "maximum": 60},
        "is_raining": {"type": "boolean"},
    },
    "required": ["name", "temperature_celsius", "is_raining"],
    "additionalProperties": False,
}
GRAMMARS = {
    "free": None,
    "text": GrammarSpec.json_schema({"type": "string", "minLength": 2000}),
    "records": GrammarSpec.json_schema({"type": "array", "items": RECORD, "minItems": 100}),
}


@dataclass(frozen=True)
class Cost:
    """Milliseconds of processor time that a step took."""

    engine: float  # the thread that computes the model, samples, and moves grammars on
    helper: float  # the one that fills masks beside it
    tokens: float  # generated a step

    @property
    def total(self) -> float:
        """As if nothing happened at the same time."""
        return self.engine + self.helper


def measure(engine: Engine, params: SamplingParams) -> Cost:
    """One round: all requests at once."""
    prompts = [f"Write about town number {i}." for i in range(REQUESTS)]
    before, begin = engine.stats(), processor_time()
    engine.generate(prompts, params)
    after, end = engine.stats(), processor_time()
    steps = after.steps - before.steps
    spent = {name: (end[name] - begin.get(name, 0.0)) / steps for name in end}
    tokens = (after.generated_tokens - before.generated_tokens) / steps
    return Cost(spent[ENGINE_THREAD], spent.get(GRAMMAR_THREAD, 0.0), tokens)


def processor_time() -> dict[str, float]:
    """Milliseconds that each thread of this process has had so far, by the threads' names."""
    times: dict[str, float] = {}
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        times[name] = times.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) * 1e-6
    return times


def main() -> None:
    """Print one line a grammar."""
    model = sys.argv[1] if len(sys.argv) > 1 else "smollm2"
    params = SamplingParams(temperature=0.0, max_tokens=TOKENS, min_tokens=TOKENS, ignore_eos=True)
    costs: dict[str, list[Cost]] = {name: [] for name in GRAMMARS}
    with Engine(model, config=EngineOptions(max_batch=REQUESTS, num_threads=1)) as engine:
        print(f"{REQUESTS} requests, {TOKENS} tokens each, vocabulary of {engine.manifest.shape.vocab_size}")
        for _ in range(ROUNDS + 1):  # the first one fills caches
            for name, grammar in GRAMMARS.items():
                costs[name].append(measure(engine, replace(params, grammar=grammar)))
    best = {name: min(rounds[1:], key=lambda cost: cost.total) for name, rounds in costs.items()}
    for name, cost in best.items():
        more = cost.total / best["free"].total - 1
        print(
            f"{name:8} {cost.engine:7.2f} + {cost.helper:5.2f} ms a step ({more:+.1%})   "
            f"{cost.tokens:5.1f} tokens a step, {cost.total / cost.tokens:6.3f} ms a token"
        )


if __name__ == "__main__":
    main()
