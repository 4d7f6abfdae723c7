"""What a request asks of its output, through the engine on the scripted model: exact, whatever the company."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import pytest
from native_driver import Collector, greedy, run
from row_sampler import log_softmax

from cupola.engine.native import NativeEngine, scripted
from cupola.engine.request import EngineConfig, GenerateRequest, PositionLogprobs, SamplingParams, TokenLogprob
from cupola.errors import RequestError
from oracle import Oracle

VOCAB = 512
ORACLE = Oracle()
CERTAIN, OTHER = log_softmax(np.array([20.0] + [0.0] * (VOCAB - 1)))[:2]


def asking(request: GenerateRequest, *, logprobs_from: int | None = None, **fields: object) -> GenerateRequest:
    """The same request with other sampling parameters."""
    sampling = dataclasses.replace(request.sampling, **fields)
    return dataclasses.replace(request, sampling=sampling, logprobs_from=logprobs_from)


def expected_scores(tokens: Sequence[int], begin: int) -> list[TokenLogprob]:
    """Of the tokens from position `begin` on, each after those before it."""
    scores = []
    for position in range(begin, len(tokens)):
        token, best = tokens[position], ORACLE.next(tokens[:position])
        # All others are equal, and among equals the lower ids come first.
        rank = 1 if token == best else token + 1 + (best > token)
        scores.append(TokenLogprob(token, CERTAIN if token == best else OTHER, rank))
    return scores


def assert_scores(found: list[PositionLogprobs], expected: list[TokenLogprob]) -> None:
    assert [position[0][::2] for position in found] == [score[::2] for score in expected]
    assert [position[0].logprob for position in found] == pytest.approx([s.logprob for s in expected], abs=1e-5)


@pytest.mark.parametrize("max_step_tokens", [3, 100, 512])
@pytest.mark.parametrize("num_pages", [2000, 20])
def test_scores_do_not_depend_on_company_chunks_or_pages(max_step_tokens: int, num_pages: int) -> None:
    rng = random.Random(max_step_tokens)
    requests = []
    for number in range(30):
        prompt = [rng.randrange(256) for _ in range(rng.randint(2, 200))]
        begin = rng.choice([1, len(prompt) // 2 or 1, len(prompt) - 1])
        request = greedy(number, prompt, rng.choice([0, 0, 5, 30]), priority=number % 2)
        requests.append(asking(request, logprobs_from=rng.choice([begin, begin, None]), prompt_logprobs=number % 3))
    config = EngineConfig(num_pages=num_pages, max_batch=8, max_step_tokens=max_step_tokens)
    engine = NativeEngine(scripted(), config, check_every_step=True)
    results = run(engine, requests)
    for request in requests:
        result, begin = results[request.id], request.logprobs_from
        tokens, reason = ORACLE.generate(request.token_ids, request.sampling.max_tokens)
        assert (result.tokens, result.reasons) == (tokens, [reason])
        assert_scores(result.prompt_logprobs, expected_scores(request.token_ids, begin) if begin else [])
        assert {len(position) for position in result.prompt_logprobs} <= {1 + request.sampling.prompt_logprobs}
    engine.close()


def test_scoring_what_was_generated_gives_its_log_probabilities() -> None:
    engine = NativeEngine(scripted(), EngineConfig(num_pages=100))
    hot = SamplingParams(temperature=3.0, seed=1, max_tokens=80, logprobs=4)
    prompt = tuple(range(10, 40))
    generated = run(engine, [GenerateRequest(1, prompt, hot)])[1]
    assert len({position[0].rank for position in generated.logprobs}) > 3, "some tokens must be left to chance"
    whole = asking(greedy(2, (*prompt, *generated.tokens), 0), logprobs_from=len(prompt), prompt_logprobs=4)
    assert run(engine, [whole])[2].prompt_logprobs == generated.logprobs
    engine.close()


def test_a_long_score_does_not_hold_up_those_who_generate() -> None:
    engine = NativeEngine(scripted(step_us=300), EngineConfig(num_pages=600, max_step_tokens=4000, max_context=5000))
    scored = asking(greedy(1, [7] * 2000, 0), logprobs_from=1)  # 32 steps of 64 rows of logits
    collector = Collector(engine)
    for request in (greedy(3, [1, 2], 20), scored, dataclasses.replace(scored, id=2)):
        engine.add(request)
    collector.until_ended([1, 2, 3])
    assert collector.order == [3, 1, 2]
    assert_scores(collector.results[2].prompt_logprobs[:300], expected_scores([7] * 301, 1))
    assert collector.results[1].prompt_logprobs == collector.results[2].prompt_logprobs
    assert collector.results[3].tokens == ORACLE.generate([1, 2], 20)[0]
    engine.close()


def test_penalties_see_the_same_text_after_a_preemption() -> None:
    rng = random.Random(5)
    requests = [
        asking(
            greedy(number, [rng.randrange(256) for _ in range(40)], 100),
            presence_penalty=2.0,
            frequency_penalty=2.0,
            repetition_penalty=10.0,
            temperature=2.0,
            seed=number,
            logprobs=1,
        )
        for number in range(8)
    ]
    ample = NativeEngine(scripted(num_ids=4), EngineConfig(num_pages=200))
    expected = run(ample, requests)
    tight = NativeEngine(scripted(num_ids=4), EngineConfig(num_pages=20, admission="optimistic"))
    results = run(tight, requests)
    assert tight.stats().preemptions > 0
    for request in requests:
        assert results[request.id] == expected[request.id]
    for engine in (ample, tight):
        engine.close()


def test_what_allows_nothing_ends_its_own_request_only() -> None:
    requests = [greedy(number, [number], 30) for number in range(10)]
    requests[4] = asking(greedy(4, [4], 30, stop=(7,)), allowed_token_ids=(7,), min_tokens=5)
    engine = NativeEngine(scripted(), EngineConfig(num_pages=100), check_every_step=True)
    results = run(engine, requests)
    assert results[4].reasons == ["refused"]
    assert "no token is allowed" in (results[4].error or "")
    for number in set(range(10)) - {4}:
        assert results[number].tokens == ORACLE.generate([number], 30)[0]
    assert engine.alive
    engine.close()


def test_a_prompt_with_broken_logits_ends_the_request_that_scores_it() -> None:
    engine = NativeEngine(scripted(poison_id=9), EngineConfig(num_pages=100))
    results = run(engine, [asking(greedy(1, [1, 9, 2, 3], 0), logprobs_from=1), greedy(2, [1, 9, 2, 3], 4)])
    assert results[1].reasons == ["error"]
    assert "not finite" in (results[1].error or "")
    assert len(results[2].tokens) == 4
    engine.close()


@pytest.mark.parametrize(
    "fields", [{"logit_bias": {VOCAB: 1.0}}, {"logit_bias": {-1: 1.0}}, {"allowed_token_ids": (VOCAB,)}]
)
def test_ids_outside_of_the_vocabulary_never_reach_a_row(fields: dict[str, object]) -> None:
    engine = NativeEngine(scripted(vocab_size=VOCAB), EngineConfig(num_pages=4))
    with pytest.raises(RequestError, match="token ids outside"):
        engine.add(asking(greedy(1, [1], 1), **fields))
    with pytest.raises(RequestError, match="token ids outside"):
        engine.add(dataclasses.replace(greedy(1, [1], 1), bad_words=((1, VOCAB),)))
    with pytest.raises(RequestError, match="token ids outside"):
        engine.add(greedy(1, [1], 1, stop=(VOCAB,)))
    engine.close()
