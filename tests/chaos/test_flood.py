"""Thousands of requests at once: beyond the queue a 429 at once, and every accepted one ends, exact."""

from __future__ import annotations

import asyncio
import time

from load import Exchange, Record, expected_text, percentile

from serving import ServerProcess

MODEL = "scripted:step_us=20000"  # ten requests a second: slower than any machine asks
SENDERS = 8


async def test_a_flood_is_answered_at_once_and_what_was_accepted_ends(full: bool, record_property: Record) -> None:
    count = 5000 if full else 400
    accepted: list[asyncio.Task[None]] = []
    refused: list[float] = []
    numbers = iter(range(count))

    with ServerProcess(MODEL, "--max-batch", "8", "--max-queue", "32", "--log-level", "warning") as server:

        async def read(exchange: Exchange, prompt: str) -> None:
            assert await exchange.streamed_text() == expected_text(MODEL, prompt, 40)

        async def send() -> None:
            for number in numbers:
                prompt = f"Flood {number}"
                body = {"model": "scripted", "prompt": prompt, "max_tokens": 40, "temperature": 0, "stream": True}
                exchange = await Exchange.begin(server.url, body)
                if exchange.status == 200:
                    accepted.append(asyncio.ensure_future(read(exchange, prompt)))
                    continue
                assert exchange.status == 429
                assert int(exchange.headers["retry-after"]) >= 1
                refused.append(exchange.seconds)
                exchange.leave()

        begin = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(SENDERS)))
        sent = time.perf_counter() - begin
        await asyncio.gather(*accepted)
        await asyncio.to_thread(server.wait_for, server.is_idle)
    assert len(accepted) + len(refused) == count
    assert refused, "the queue was never full"
    record_property("requests, a second", f"{count}, {count / sent:.0f}")
    record_property("accepted, all exact", len(accepted))
    record_property("429 with Retry-After", len(refused))
    record_property("429: p50, p99, ms", f"{percentile(refused, 0.5) * 1e3:.1f}, {percentile(refused, 0.99) * 1e3:.1f}")
