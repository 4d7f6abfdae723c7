"""Log-probabilities and scores in text: aligned with the tokens, with the right bytes, and the same both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from scripted_engine import oracle_text

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.engine import Engine
from cupola.engine.options import EngineOptions
from cupola.engine.request import FinishReason, RequestOptions, SamplingParams
from cupola.errors import ContextLengthError, RequestError

HOT = SamplingParams(temperature=2.0, seed=3, max_tokens=300, ignore_eos=True, logprobs=2)


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    async with await AsyncEngine.open("scripted:first_id=0,num_ids=256") as opened:
        yield opened


async def test_every_token_has_its_bytes_and_they_make_the_text(engine: AsyncEngine) -> None:
    completion = await engine.complete("é", HOT)
    assert [position.token.token_id for position in completion.logprobs] == list(completion.token_ids)
    joined = b"".join(position.token.data for position in completion.logprobs if position.token.token_id < 256)
    assert joined.decode("utf-8", "replace") == completion.text
    assert any(position.token.text == "�" for position in completion.logprobs), "bytes that are no characters"
    assert all(len(position.top) == 2 and position.top[0].rank == 1 for position in completion.logprobs)


async def test_special_tokens_are_shown_as_they_are_written(engine: AsyncEngine) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, logit_bias={258: 100.0}, logprobs=0)
    completion = await engine.complete("x", params)
    assert (completion.text, completion.logprobs[0].token.data) == ("", b"<|im_end|>")


async def test_none_are_made_unless_asked_for(engine: AsyncEngine) -> None:
    completion = await engine.complete("x", replace(HOT, logprobs=None))
    assert (completion.logprobs, completion.prompt_logprobs) == ((), ())


async def test_a_stop_string_cuts_tokens_and_log_probabilities_alike() -> None:
    async with await AsyncEngine.open("scripted") as engine:
        text = oracle_text("x", 30)
        params = SamplingParams(temperature=0.0, max_tokens=30, stop=(text[10:12],), logprobs=0)
        completion = await engine.complete("x", params)
        assert completion.text == text[: text.index(text[10:12])]
        assert len(completion.logprobs) == len(completion.token_ids)


async def test_a_score_is_what_generating_reports(engine: AsyncEngine) -> None:
    completion = await engine.complete("prompt", HOT)
    [score] = await engine.score("prompt", [completion.token_ids], top=2)
    assert score.positions == completion.logprobs
    assert score.token_ids == completion.token_ids
    assert score.total == pytest.approx(sum(score.logprobs))
    assert not score.is_greedy
    assert (score.usage.prompt_tokens, score.usage.completion_tokens) == (306, 0)


async def test_greedy_continuations_are_told_from_others() -> None:
    async with await AsyncEngine.open("scripted") as engine:
        best = oracle_text("some context", 5)
        scores = await engine.score("some context", [best, best[:4] + "!", "?", *[best] * 40])
        assert [score.is_greedy for score in scores] == [True, False, False, *[True] * 40]
        assert scores[0].total > scores[1].total
        assert scores[1].logprobs[:4] == scores[0].logprobs[:4]


async def test_prompt_log_probabilities_begin_at_the_second_token(engine: AsyncEngine) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=2, prompt_logprobs=1)
    completion = await engine.complete("hello", params)
    assert bytes(position.token.token_id for position in completion.prompt_logprobs) == b"ello"
    assert len(completion.token_ids) == 2
    reading = await engine.complete("hello", replace(params, max_tokens=0))
    assert reading.prompt_logprobs == completion.prompt_logprobs
    assert (reading.text, reading.finish_reason) == ("", FinishReason.LENGTH)


async def test_bad_words_are_avoided_at_the_start_and_after_a_space() -> None:
    async with await AsyncEngine.open("scripted") as engine:
        text = oracle_text("x", 40)
        word = text[5:8]
        params = SamplingParams(temperature=0.0, max_tokens=40, bad_words=(word, (ord(text[0]),)))
        found = (await engine.complete("x", params)).text
        assert word not in found
        assert text[0] not in found


@pytest.mark.parametrize(
    ("prompt", "continuations", "param"),
    [
        ("", ["a"], "prompt"),
        ("a", [], "continuations"),
        ("a", [""], "continuations"),
        ("a", ["b", []], "continuations"),
        ("a", "text", "continuations"),
        ("a", [[999]], "prompt"),
    ],
)
async def test_scores_that_cannot_be(engine: AsyncEngine, prompt: str, continuations: object, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        await engine.score(prompt, continuations)  # type: ignore[arg-type]
    assert caught.value.param == param


async def test_a_score_may_fill_the_context_and_no_more() -> None:
    async with await AsyncEngine.open("scripted", config=EngineOptions(max_context=20)) as engine:
        assert len((await engine.score("x" * 10, ["y" * 10]))[0].logprobs) == 10
        with pytest.raises(ContextLengthError):
            await engine.score("x" * 10, ["y" * 11])


def test_the_engine_without_asyncio_scores_and_gives_choices() -> None:
    with Engine("scripted") as engine:
        params = SamplingParams(temperature=2.0, seed=2**63 - 1, max_tokens=200)
        answers = engine.generate(["x"] * 3, params.choices(3), RequestOptions(priority=1))
        assert len({answer.text for answer in answers}) == 3
        alone = engine.generate("x", replace(params, seed=-(2**63)))
        assert alone[0].text == answers[1].text
        assert engine.score("x", ["a", "b"])[0].token_ids == (ord("a"),)
