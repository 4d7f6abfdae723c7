"""Requests that can never be served: a 400 with numbers, and nothing of them reaches the engine."""

from __future__ import annotations

import pytest

from stand import CHAT, COMPLETIONS, Stand, open_stand

CASES = {
    "a prompt longer than the context": (COMPLETIONS, {"prompt": "x" * 5000}, "5000"),
    "a prompt of ids that is as long": (COMPLETIONS, {"prompt": [65] * 4097}, "4097"),
    "max_tokens beyond the context": (COMPLETIONS, {"prompt": "x", "max_tokens": 4096}, "4096"),
    "a conversation longer than the context": (CHAT, {"messages": [{"role": "user", "content": "x" * 5000}]}, "4096"),
    "n far too large": (COMPLETIONS, {"prompt": "x", "n": 1000}, "128"),
    "too many prompts": (COMPLETIONS, {"prompt": ["x"] * 2000}, "1024"),
    "too many choices in all": (COMPLETIONS, {"prompt": ["x"] * 100, "n": 100}, "1024"),
    "an empty prompt": (COMPLETIONS, {"prompt": ""}, "one token"),
    "no prompt at all": (COMPLETIONS, {"prompt": []}, "prompt"),
    "an id that is none": (COMPLETIONS, {"prompt": [259]}, "258"),
    "a negative length": (COMPLETIONS, {"prompt": "x", "max_tokens": -1}, "0"),
    "a minimum above the maximum": (COMPLETIONS, {"prompt": "x", "max_tokens": 3, "min_tokens": 4}, "4"),
    "too many log-probabilities": (CHAT, {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 21}, "20"),
    "too many stop strings": (COMPLETIONS, {"prompt": "x", "stop": ["a"] * 33}, "32"),
    "a bias on an id that is none": (COMPLETIONS, {"prompt": "x", "logit_bias": {"259": 1}}, "258"),
    "too large a bias": (COMPLETIONS, {"prompt": "x", "logit_bias": {"1": 101}}, "100"),
}


@pytest.mark.parametrize("name", CASES)
async def test_it_is_refused_with_numbers_and_never_reaches_the_engine(name: str) -> None:
    path, fields, number = CASES[name]
    async with open_stand() as stand:
        answer = await stand.client.post(path, json={"model": "scripted", **fields})
        error = answer.json()["error"]
        assert answer.status_code == 400, answer.text
        assert error["type"] == "invalid_request_error"
        assert error["param"]
        assert error["code"]
        assert number in error["message"]
        untouched(stand)


async def test_the_longest_request_that_fits_is_served() -> None:
    async with open_stand() as stand:
        for body in ({"prompt": "x" * 4095, "max_tokens": 1}, {"prompt": "x", "max_tokens": 4095}):
            answer = await stand.client.post(COMPLETIONS, json={"model": "scripted", "temperature": 0, **body})
            assert answer.json()["usage"]["total_tokens"] == 4096


def untouched(stand: Stand) -> None:
    stats = stand.engine.stats()
    assert (stats.running, stats.waiting, stats.steps, stats.prompt_tokens) == (0, 0, 0, 0)
