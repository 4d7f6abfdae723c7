"""More is asked for than there are pages: everybody finishes, exactly as if alone, and nobody starves."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import Callable

import pytest
from load import Record, expected_text

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.backends.scripted import EOS_ID
from cupola.engine.grammar import CompiledGrammar, GrammarSpec
from cupola.engine.options import EngineOptions
from cupola.engine.request import AdmissionPolicy, RequestOptions, SamplingParams
from grammar_oracle import byte_compiler, constrained
from oracle import Oracle

MODEL = "scripted"
SLOW = "scripted:step_us=500"
GREEDY = SamplingParams(temperature=0.0)
GRAMMAR = GrammarSpec.regex('("[a-m]{2,9}", ){2}"the end of it"')


@pytest.mark.parametrize("admission", ["predicted", "optimistic", "conservative"])
async def test_five_times_the_pool_with_mixed_priorities(
    admission: AdmissionPolicy, full: bool, failpoints: Callable[[str], None], record_property: Record
) -> None:
    rng = random.Random(2)
    count = 320 if full else 64
    pages = 60
    requests = [
        (f"{i:04d}" + "p" * rng.randint(1, 20), rng.randint(40, 150), rng.choice((-1, 0, 0, 0, 1)))
        for i in range(count)
    ]
    demand = sum((len(prompt) + length + 15) // 16 for prompt, length, _ in requests)
    assert demand >= 5 * pages
    clock: Counter[str] = Counter()  # tokens of all requests: a measure of time that no machine's load changes
    waits, ends = [], []

    async def ask(engine: AsyncEngine, prompt: str, length: int, priority: int) -> str:
        params = SamplingParams(temperature=0.0, max_tokens=length)
        text, first = "", True
        async for delta in engine.generate(prompt, params, RequestOptions(priority=priority)):
            clock["tokens"] += len(delta.token_ids)
            text += delta.text
            if first:
                waits.append(clock["tokens"])
            first = False
        ends.append(clock["tokens"])
        return text

    options = EngineOptions(num_pages=pages, max_batch=64, max_step_tokens=128, admission=admission)
    async with AsyncEngine(SLOW, config=options) as engine:
        failpoints("schedule=sleep:1000ms*1")  # so that all are there when the first step is planned
        texts = await asyncio.wait_for(asyncio.gather(*(ask(engine, *request) for request in requests)), 300)
        stats = engine.stats()
    for (prompt, length, _), text in zip(requests, texts, strict=True):
        assert text == expected_text(MODEL, prompt, length)
    assert (stats.running, stats.waiting, stats.pages_free) == (0, 0, pages)
    assert admission == "predicted" or (stats.preemptions > 0) == (admission == "optimistic")
    assert max(waits) <= 3 * statistics.median(ends)
    record_property("requests, all exact", count)
    record_property("demand over pool", demand / pages)
    record_property("preemptions", stats.preemptions)
    record_property("longest wait over median finish", max(waits) / statistics.median(ends))


async def test_no_seed_comes_to_a_halt(full: bool, record_property: Record) -> None:
    seeds = 1000 if full else 25
    compiler = byte_compiler()
    bound = compiler.compile_now(GRAMMAR)
    preemptions = requests = 0
    for seed in range(seeds):
        rng = random.Random(seed)
        pages = rng.randint(6, 40)
        options = EngineOptions(
            num_pages=pages,
            max_batch=rng.choice((1, 3, 8, 64)),
            max_step_tokens=rng.choice((7, 16, 64, 512)),
            admission=rng.choice(("predicted", "optimistic", "conservative")),
            prefix_cache=rng.random() < 0.6,
        )
        async with AsyncEngine(MODEL, config=options) as engine:
            most = pages * 16
            work = []
            for _ in range(rng.randint(4, 20)):
                length = rng.randint(1, min(120, most - 1))
                prompt = "".join(rng.choices("ab", k=rng.randint(1, min(200, most - length))))
                priority = rng.choice((-2, 0, 0, 5))
                work.append(exact(engine, prompt, length, priority, bound if rng.random() < 0.3 else None))
            await asyncio.wait_for(asyncio.gather(*work), 100)
            stats = engine.stats()
            assert (stats.running, stats.waiting, stats.pages_free) == (0, 0, pages), f"seed {seed}"
            preemptions += stats.preemptions
            requests += len(work)
    compiler.close()
    record_property("seeds", seeds)
    record_property("requests, all exact", requests)
    record_property("preemptions", preemptions)


async def exact(engine: AsyncEngine, prompt: str, length: int, priority: int, grammar: CompiledGrammar | None) -> None:
    """One request, free or bound by a grammar, whose text must be the oracle's."""
    params = SamplingParams(temperature=0.0, max_tokens=length, grammar=grammar and grammar.spec)
    completion = await engine.complete(prompt, params, RequestOptions(priority=priority))
    if grammar is None:
        assert completion.text == expected_text(MODEL, prompt, length)
    else:
        tokens, _ = constrained(Oracle(ord("a"), 26, EOS_ID), grammar, list(prompt.encode()), length)
        assert completion.text == bytes(tokens).decode()
