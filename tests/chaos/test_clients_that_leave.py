"""Clients disconnect by the hundred: in the middle of a stream, while their prompt is read, while they wait."""

from __future__ import annotations

import asyncio
import random
import time

from load import Exchange, Record, expected_text

from serving import ServerProcess

MODEL = "scripted:step_us=500,token_us=30"
OPTIONS = ("--max-batch", "8", "--max-step-tokens", "64", "--log-level", "warning")


async def test_disconnects_leave_no_trace(full: bool, record_property: Record) -> None:
    count = 500 if full else 60
    rng = random.Random(1)
    with ServerProcess(MODEL, *OPTIONS) as server:

        async def leave(number: int) -> None:
            kind = number % 3
            prompt = f"Leaving {number} " + "x" * (1500 if kind == 1 else 10)
            body = {"model": "scripted", "prompt": prompt, "max_tokens": 400, "ignore_eos": True, "stream": kind != 2}
            begin = asyncio.ensure_future(Exchange.begin(server.url, body))
            # 0: after some of its stream; 1: while its prompt is read; 2: before any answer, mostly in the queue.
            await asyncio.wait([begin], timeout=0.02 if kind else 100)
            if kind == 0:
                await asyncio.wait_for((await begin).reader.read(rng.randint(1, 600)), 100)
            if begin.done():
                begin.result().leave()
            begin.cancel()
            await asyncio.gather(begin, return_exceptions=True)

        async def stay(number: int) -> None:
            prompt = f"Staying {number}"
            body = {"model": "scripted", "prompt": prompt, "max_tokens": 60, "temperature": 0, "stream": True}
            exchange = await Exchange.begin(server.url, body)
            assert await exchange.streamed_text() == expected_text(MODEL, prompt, 60)

        staying = [asyncio.ensure_future(stay(i)) for i in range(count // 20)]
        for begin in range(0, count, 50):
            await asyncio.gather(*(leave(number) for number in range(begin, min(begin + 50, count))))
        left = time.monotonic()
        await asyncio.gather(*staying)
        await asyncio.to_thread(server.wait_for, server.is_idle)
        record_property("disconnects, exact streams beside them", f"{count}, {len(staying)}")
        record_property("from the last disconnect to idle with all pages, s", time.monotonic() - left)
        record_property("aborted by the engine", int(server.metric("cupola:requests_aborted_total")))
