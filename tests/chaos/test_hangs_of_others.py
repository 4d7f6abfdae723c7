"""How a related engine hangs, spins and dies, row by row; each row is a test here, or is one elsewhere.

The rows are the classes of robustness bugs found in MLC LLM's engine; `test_every_row_is_tested` keeps the table true.

| row | there | tested here in |
|---|---|---|
| 1 | an exception on the engine's thread: all wait for ever | native/test_failure.py, chaos/test_engine_faults.py |
| 2 | a failed load freezes the process | engine/test_compiled_backend.py, native/test_engine.py |
| 3 | a wake-up is lost at shutdown | native/test_engine.py, native/stress_engine.cc |
| 4 | a full cache: livelock, crash, layers that disagree by one | chaos/test_exhaustion.py, and below |
| 5 | grammars are compiled on the engine's thread; a bad one ends it | engine/test_grammar_compiler.py |
| 6 | `top_logprobs` beyond 5 writes out of bounds | conformance/test_openai_client.py, and below |
| 7 | ids in `logit_bias` and prompts are not checked | native/test_request_fields.py, engine/test_admission.py |
| 8 | two users with one `user` string collide | below |
| 9 | logits that are not numbers end the engine | native/test_failure.py, native/test_request_fields.py |
| 10 | no bound of the queue, no deadline, no drain | chaos/test_flood.py, server/test_app.py, server/test_process.py |
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from load import expected_text

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.options import EngineOptions
from cupola.engine.request import SamplingParams
from cupola.errors import ContextLengthError
from stand import CHAT, COMPLETIONS, open_stand

ROWS = {
    "native/test_failure.py": ("test_an_engine_that_keeps_failing_gives_up", "test_logits_that_are_not_finite"),
    "chaos/test_engine_faults.py": ("test_a_fault_gives_its_batch_a_500_and_the_next_request_succeeds",),
    "engine/test_compiled_backend.py": ("test_a_damaged_file_is_refused", "test_another_versions_library_is_refused"),
    "native/test_engine.py": ("test_sizes_that_cannot_be", "test_adding_while_closing_never_loses_a_request"),
    "chaos/test_exhaustion.py": ("test_no_seed_comes_to_a_halt",),
    "engine/test_grammar_compiler.py": ("test_hostile_grammars_harm_their_own_requests_at_most",),
    "native/test_grammar.py": ("test_ids_beyond_the_tokens_are_never_allowed", "test_a_token_that_is_not_allowed"),
    "conformance/test_openai_client.py": ("test_logprobs_of_a_chat",),
    "native/test_request_fields.py": ("test_ids_outside_of_the_vocabulary_never_reach_a_row",),
    "engine/test_admission.py": ("test_token_ids_outside_of_the_vocabulary_are_refused",),
    "chaos/test_flood.py": ("test_a_flood_is_answered_at_once_and_what_was_accepted_ends",),
    "server/test_app.py": ("test_a_drain_refuses_new_work_and_lets_the_rest_finish",),
    "server/test_process.py": ("test_a_signal_drains",),
}


@pytest.mark.parametrize("file", ROWS)
def test_every_row_is_tested(file: str) -> None:
    source = (Path(__file__).parents[1] / file).read_text()
    for name in ROWS[file]:
        assert f"def {name}" in source


@pytest.mark.parametrize("pages", [1, 3])
async def test_row_4_whatever_is_accepted_ends_up_to_the_last_slot_of_the_pool(pages: int) -> None:
    """All lengths around the pool's: what the door accepts the scheduler finishes, and the door says no beforehand."""
    slots = 16 * pages
    async with AsyncEngine("scripted", config=EngineOptions(num_pages=pages, max_step_tokens=16)) as engine:
        for prompt_length in (1, slots // 2, slots - 9, slots - 1, slots, slots + 1):
            prompt = "p" * prompt_length
            for max_tokens in {1, 2, max(1, slots - prompt_length), max(1, slots + 1 - prompt_length)}:
                params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
                if prompt_length + max_tokens > slots:
                    with pytest.raises(ContextLengthError):
                        await engine.complete(prompt, params)
                    continue
                beside = asyncio.ensure_future(engine.complete("x", SamplingParams(temperature=0.0, max_tokens=15)))
                completion = await asyncio.wait_for(engine.complete(prompt, params), 100)
                assert completion.text == expected_text("scripted", prompt, max_tokens)
                await beside
        assert engine.stats().pages_free == pages


async def test_row_6_all_numbers_of_top_logprobs_are_safe() -> None:
    async with open_stand() as stand:
        for top in (*range(0, 21, 4), 20):
            body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
            answer = await stand.client.post(CHAT, json={**body, "logprobs": True, "top_logprobs": top})
            assert [len(token["top_logprobs"]) for token in answer.json()["choices"][0]["logprobs"]["content"]] == [
                top
            ] * 3
        assert (await stand.client.post(CHAT, json={**body, "logprobs": True, "top_logprobs": 21})).status_code == 400


async def test_row_8_users_of_one_name_are_two_requests() -> None:
    async with open_stand("scripted:step_us=500") as stand:

        async def ask(prompt: str) -> str:
            body = {"model": "scripted", "prompt": prompt, "max_tokens": 30, "temperature": 0, "user": "same"}
            answer = await stand.client.post(COMPLETIONS, json=body)
            return str(answer.json()["choices"][0]["text"])

        prompts = [f"Question {i}" for i in range(6)]
        texts = await asyncio.gather(*(ask(prompt) for prompt in prompts))
        assert texts == [expected_text("scripted", prompt, 30) for prompt in prompts]
