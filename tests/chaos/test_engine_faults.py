"""The engine's step fails: its batch gets a 500, everybody else is right; and if it goes on, the process says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx
import pytest
from load import Record, expected_text

from cupola.engine.options import EngineOptions
from serving import ServerProcess
from stand import COMPLETIONS, open_stand, until

MODEL = "scripted:step_us=300"


@pytest.mark.parametrize("place", ["schedule", "allocate", "forward", "sample"])
async def test_a_fault_gives_its_batch_a_500_and_the_next_request_succeeds(
    place: str, full: bool, failpoints: Callable[[str], None], record_property: Record
) -> None:
    rounds = 40 if full else 4
    failed = served = 0
    async with open_stand(MODEL, EngineOptions(num_pages=64, max_batch=8)) as stand:

        async def ask(prompt: str) -> httpx.Response:
            body = {"model": "scripted", "prompt": prompt, "max_tokens": 24, "temperature": 0}
            return await stand.client.post(COMPLETIONS, json=body)

        for number in range(rounds):
            prompts = [f"Round {number}, request {i}" for i in range(16)]
            failpoints("forward=sleep:100ms")  # slow until a whole batch runs
            work = [asyncio.ensure_future(ask(prompt)) for prompt in prompts]
            await until(lambda: stand.engine.stats().running == 8)
            failpoints(f"{place}=throw*1")
            failed_before = failed
            for prompt, answer in zip(prompts, await asyncio.gather(*work), strict=True):
                assert answer.headers["x-request-id"]
                if answer.status_code == 500:
                    assert answer.json()["error"]["code"] == "engine_error"
                    assert f"njected fault in {place}" in answer.json()["error"]["message"]
                    failed += 1
                else:
                    assert answer.json()["choices"][0]["text"] == expected_text(MODEL, prompt, 24)
                    served += 1
            assert failed > failed_before
            after = await ask("after")
            assert after.json()["choices"][0]["text"] == expected_text(MODEL, "after", 24)
        assert stand.engine.healthy
        stats = stand.engine.stats()
        assert (stats.running, stats.waiting, stats.pages_free) == (0, 0, stats.pages_total)
    record_property("steps that failed", rounds)
    record_property("requests: 500, exact 200", f"{failed}, {served}")


def test_an_engine_that_keeps_failing_is_unhealthy_and_the_process_ends(
    monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    monkeypatch.setenv("CUPOLA_FAILPOINTS", "forward=throw")
    with ServerProcess("scripted") as server:
        begin = time.monotonic()
        for _ in range(3):
            answer = server.client.post(COMPLETIONS, json={"model": "scripted", "prompt": "x", "max_tokens": 4})
            assert answer.status_code == 500
        code, errors = server.end()
        record_property("from the first failure to the end of the process, s", time.monotonic() - begin)
    assert code != 0
    assert "injected fault in forward" in errors
