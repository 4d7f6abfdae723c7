"""Reasoning ends where its budget does: the tokens that come are those of a model that is interrupted just there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from native_driver import greedy, run

from cupola.engine.native import NativeEngine, scripted
from cupola.engine.request import EngineConfig, GenerateRequest, ThinkingLimit
from oracle import Oracle

# Few different tokens, so that delimiters come by themselves now and then, and an id that never does.
SCRIPT = {"num_ids": 6}
ORACLE = Oracle(**SCRIPT)
CLOSE = 200


def limited(request: GenerateRequest, limit: ThinkingLimit) -> GenerateRequest:
    return replace(request, sampling=replace(request.sampling, thinking_limit=limit))


def expected(prompt: Sequence[int], count: int, limit: ThinkingLimit) -> list[int]:
    """The tokens by the rule of `ThinkingLimit`, in the plainest words."""
    history, inside, left, begin = list(prompt), limit.begun, limit.budget, len(prompt)
    for _ in range(count):
        token = limit.close if inside and left == 0 else ORACLE.next(history)
        history.append(token)
        if inside:
            inside = token != limit.close
            left -= inside
            begin = len(history)
        elif limit.open and tuple(history[max(begin, len(history) - len(limit.open)) :]) == limit.open:
            inside = True
    return history[len(prompt) :]


def generate(requests: list[GenerateRequest], **config: int) -> dict[int, list[int]]:
    engine = NativeEngine(scripted(**SCRIPT), EngineConfig(**{"num_pages": 2000} | config), check_every_step=True)
    results = run(engine, requests)
    engine.close()
    return {request_id: result.tokens for request_id, result in results.items()}


@pytest.mark.parametrize("budget", [0, 1, 7, 59, 60])
def test_reasoning_that_the_prompt_has_begun_is_closed_in_time(budget: int) -> None:
    plain = greedy(1, (1, 2, 3), 60)
    found = generate([plain, limited(replace(plain, id=2), ThinkingLimit((), CLOSE, budget, begun=True))])
    assert found[2][:budget] == found[1][:budget]
    assert found[2].count(CLOSE) == (budget < 60)
    assert budget == 60 or found[2].index(CLOSE) == budget


def test_reasoning_that_ends_by_itself_costs_nothing_more() -> None:
    plain = greedy(1, (1, 2, 3), 40)
    tokens = generate([plain])[1]
    close = tokens[10]
    budget = tokens.index(close) + 1  # one more than it takes
    limit = ThinkingLimit((), close, budget, begun=True)
    assert generate([limited(plain, limit)])[1] == tokens


@pytest.mark.parametrize("num_pages", [2000, 16])  # ample; and so few that requests lose theirs
@pytest.mark.parametrize("max_step_tokens", [4, 512])
def test_many_at_once_follow_the_rule_whatever_happens_to_them(num_pages: int, max_step_tokens: int) -> None:
    rng = random.Random(3)
    requests = []
    for request_id in range(48):
        delimiters = rng.sample(range(6), 3)
        limit = ThinkingLimit(
            open=tuple(delimiters[: rng.choice([1, 1, 2])]),
            close=rng.choice([delimiters[2], CLOSE]),
            budget=rng.randrange(12),
            begun=rng.random() < 0.5,
        )
        plain = greedy(request_id, [rng.randrange(256) for _ in range(rng.randint(1, 60))], rng.randint(1, 80))
        requests.append(limited(plain, limit))
    found = generate(requests, num_pages=num_pages, max_step_tokens=max_step_tokens, max_batch=8)
    for request in requests:
        limit = request.sampling.thinking_limit
        assert limit is not None
        assert found[request.id] == expected(request.token_ids, len(found[request.id]), limit)
        assert len(found[request.id]) == request.sampling.max_tokens


def test_the_token_that_is_forced_has_its_own_log_probability() -> None:
    plain = greedy(1, (1, 2, 3), 5)
    asked = replace(plain, sampling=replace(plain.sampling, logprobs=2))
    engine = NativeEngine(scripted(**SCRIPT), EngineConfig(num_pages=100))
    result = run(engine, [limited(asked, ThinkingLimit((), CLOSE, 3, begun=True))])[1]
    engine.close()
    assert [position[0].token_id for position in result.logprobs] == result.tokens
    assert result.tokens[3] == CLOSE
    chosen, best, _ = result.logprobs[3]
    assert chosen.logprob < best.logprob
    assert chosen.rank > 1


def test_stop_ids_still_end_what_is_forced() -> None:
    request = limited(greedy(1, (1, 2, 3), 60, stop=(CLOSE,)), ThinkingLimit((), CLOSE, 4, begun=True))
    engine = NativeEngine(scripted(**SCRIPT), EngineConfig(num_pages=100))
    result = run(engine, [request])[1]
    engine.close()
    assert (len(result.tokens), result.reasons) == (4, ["stop"])
