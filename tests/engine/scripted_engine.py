"""What the engine's tests share: engines on the scripted model, its oracle in text, and waiting for a state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.backends.scripted import EOS_ID, Script, parse_script
from cupola.engine.request import SamplingParams
from oracle import Oracle

GREEDY = SamplingParams(temperature=0.0, max_tokens=16)


def oracle_text(prompt: str, max_tokens: int, model: str = "scripted") -> str:
    """What the scripted model says after a prompt, as far as it is letters."""
    script: Script = parse_script(model)
    oracle = Oracle(script.first_id, script.num_ids, EOS_ID, script.eos_every)
    return bytes(oracle.generate(list(prompt.encode()), max_tokens, [EOS_ID])[0]).decode()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a state; fails after far more than anything here takes, also on a slow machine."""
    deadline = time.monotonic() + 100
    while not holds():
        assert time.monotonic() < deadline, "the state was not reached"
        await asyncio.sleep(0.001)


async def all_pages_back(engine: AsyncEngine) -> None:
    """Wait until nothing runs, nothing waits and every page is free."""

    def idle() -> bool:
        stats = engine.stats()
        return stats.running == stats.waiting == 0 and stats.pages_free == stats.pages_total

    await until(idle)
