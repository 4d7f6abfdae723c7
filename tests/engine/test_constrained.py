"""Constrained generation on the scripted model: texts that fit, the same whatever else the engine does.

Every expectation comes from `grammar_oracle`, which goes token by token and knows no forced ones.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import jsonschema
import pytest
from scripted_engine import all_pages_back

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.backends.scripted import EOS_ID, parse_script
from cupola.engine.engine import Engine
from cupola.engine.grammar import GrammarSpec
from cupola.engine.options import EngineOptions
from cupola.engine.output import Completion
from cupola.engine.request import FinishReason, SamplingParams
from cupola.errors import RequestError
from grammar_oracle import byte_compiler, constrained
from oracle import Oracle

MODEL = "scripted:first_id=32,num_ids=90,eos_every=40"
PERSON = {
    "type": "object",
    "properties": {
        "full_name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 999},
        "colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 4},
    },
    "required": ["full_name", "age", "colours"],
    "additionalProperties": False,
}
SPECS = [
    GrammarSpec.json_schema(PERSON),
    GrammarSpec.regex(r"[A-Z][a-z]{3,10} [0-9]{3}-[0-9]{4}"),
    GrammarSpec.grammar('start: "let " name " = " sum ";"\nname: /[a-z]{1,6}/\nsum: /[0-9]/ ("+" /[0-9]/){0,4}'),
    GrammarSpec.choice(["the first of them", "the second", "another"]),
]
GREEDY = SamplingParams(temperature=0.0, max_tokens=200)


def expected(spec: GrammarSpec, prompt: str, max_tokens: int = 200, stop_ids: tuple[int, ...] = (EOS_ID,)) -> object:
    script = parse_script(MODEL)
    oracle = Oracle(script.first_id, script.num_ids, EOS_ID, script.eos_every)
    grammar = byte_compiler().compile_now(spec)
    tokens, reason = constrained(oracle, grammar, list(prompt.encode()), max_tokens, stop_ids)
    return bytes(token for token in tokens if token < 256).decode(), reason


def outcome(completion: Completion) -> object:
    return completion.text, completion.finish_reason.value


async def run(engine: AsyncEngine, count: int, params: SamplingParams = GREEDY) -> list[Completion]:
    """`count` requests at once, each third one free, the others under all the grammars in turn."""
    work = [
        engine.complete(f"Prompt {i}: ", replace(params, grammar=None if i % 3 == 2 else SPECS[i % len(SPECS)]))
        for i in range(count)
    ]
    return list(await asyncio.gather(*work))


def check(completions: list[Completion], max_tokens: int = 200) -> None:
    script = parse_script(MODEL)
    free = Oracle(script.first_id, script.num_ids, EOS_ID, script.eos_every)
    for i, completion in enumerate(completions):
        prompt = f"Prompt {i}: "
        if i % 3 == 2:
            tokens, reason = free.generate(list(prompt.encode()), max_tokens, [EOS_ID])
            assert outcome(completion) == (bytes(tokens).decode(), reason)
        else:
            assert outcome(completion) == expected(SPECS[i % len(SPECS)], prompt, max_tokens)


async def test_texts_fit_their_grammars_and_are_those_of_the_oracle() -> None:
    async with AsyncEngine(MODEL) as engine:
        completions = await run(engine, 12)
    check(completions)
    jsonschema.validate(json.loads(completions[0].text), PERSON)
    assert re.fullmatch(r"[A-Z][a-z]{3,10} [0-9]{3}-[0-9]{4}", completions[1].text)
    assert completions[3].text in ("the first of them", "the second", "another")
    assert re.fullmatch(r"let [a-z]{1,6} = [0-9](\+[0-9]){0,4};", completions[6].text)


async def test_forced_tokens_take_no_step_of_their_own() -> None:
    async with AsyncEngine(MODEL) as engine:
        completion = await engine.complete("x", replace(GREEDY, grammar=SPECS[0]))
        forced = len('{"full_name": "') - 1 + len('", "age": ') - 1 + len(', "colours": [') - 1
        assert engine.stats().steps <= len(completion.token_ids) - forced + 1


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(num_pages=14, max_batch=18, admission="optimistic"),
        EngineOptions(num_pages=400, max_batch=32, max_step_tokens=7),
        EngineOptions(num_pages=400, max_batch=3, prefix_cache=False),
    ],
    ids=["preemption", "small steps", "no prefix cache"],
)
async def test_pages_steps_and_company_change_nothing(options: EngineOptions) -> None:
    # Slow enough that all requests are there before the first of them ends, their grammars compiled before.
    async with AsyncEngine(f"{MODEL},step_us=5000", config=options) as engine:
        check(await run(engine, 7))
        check(await run(engine, 18))
        if options.admission == "optimistic":
            assert engine.stats().preemptions > 0
        await all_pages_back(engine)


async def test_requests_that_leave_disturb_nobody() -> None:
    async with AsyncEngine(MODEL, config=EngineOptions(num_pages=40)) as engine:
        params = replace(GREEDY, grammar=GrammarSpec.regex("[a-z]{150}"))
        leaving = [engine.submit("Bye", params) for _ in range(6)]
        work = asyncio.ensure_future(run(engine, 9))
        for stream in leaving:
            await anext(stream)
            await stream.aclose()
        check(await work)
        await all_pages_back(engine)


async def test_log_probabilities_are_reported_for_every_token_and_change_none() -> None:
    async with AsyncEngine(MODEL) as engine:
        params = replace(GREEDY, grammar=SPECS[0])
        plain = await engine.complete("Prompt 0: ", params)
        reported = await engine.complete("Prompt 0: ", replace(params, logprobs=0))
    assert outcome(reported) == outcome(plain)
    assert len(reported.logprobs) == len(plain.token_ids)


@pytest.mark.parametrize("max_tokens", [1, 5, 14, 15, 30])
async def test_max_tokens_cuts_also_within_what_is_forced(max_tokens: int) -> None:
    async with AsyncEngine(MODEL) as engine:
        completion = await engine.complete("Cut", replace(GREEDY, grammar=SPECS[0], max_tokens=max_tokens))
        assert outcome(completion) == expected(SPECS[0], "Cut", max_tokens)
        assert completion.usage.completion_tokens == max_tokens
        await all_pages_back(engine)


async def test_a_grammar_at_its_end_ends_the_request_whatever_else_it_asks() -> None:
    stubborn = replace(GREEDY, grammar=GrammarSpec.choice(["done"]), min_tokens=50, ignore_eos=True)
    async with AsyncEngine(MODEL) as engine:
        completion = await engine.complete("x", stubborn)
    assert outcome(completion) == ("done", "stop")
    assert completion.usage.completion_tokens == 4


async def test_min_tokens_keeps_a_text_going_as_long_as_its_grammar_lets_it() -> None:
    params = replace(GREEDY, grammar=GrammarSpec.regex("[a-z]{1,60}"), min_tokens=40)
    async with AsyncEngine("scripted:first_id=97,num_ids=26,eos_every=4") as engine:
        short = await engine.complete("x", replace(params, min_tokens=0))
        long = await engine.complete("x", params)
    assert short.finish_reason is long.finish_reason is FinishReason.STOP
    assert len(short.text) < 40 <= len(long.text)


async def test_stop_strings_and_ids_end_constrained_text_too() -> None:
    params = replace(GREEDY, grammar=SPECS[0])
    async with AsyncEngine(MODEL) as engine:
        assert (await engine.complete("x", replace(params, stop=('name"',)))).text == '{"full_'
        by_id = await engine.complete("x", replace(params, stop_token_ids=(ord("_"),)))
    assert outcome(by_id) == ('{"full', "stop")


async def test_choices_of_one_prompt_follow_the_grammar_each_in_its_own_way() -> None:
    params = SamplingParams(seed=7, max_tokens=40, grammar=GrammarSpec.regex("[a-z]{12}"))
    async with AsyncEngine(MODEL) as engine:
        together = await asyncio.gather(*(engine.complete("x", choice) for choice in params.choices(6)))
        alone = [await engine.complete("x", choice) for choice in params.choices(6)]
    assert [outcome(one) for one in together] == [outcome(one) for one in alone]
    assert len({one.text for one in together}) == 6
    assert all(re.fullmatch("[a-z]{12}", one.text) for one in together)


async def test_biases_and_bans_choose_among_what_is_allowed() -> None:
    params = replace(GREEDY, grammar=GrammarSpec.regex("[ab]{5}"))
    async with AsyncEngine(MODEL) as engine:
        biased = await engine.complete("x", replace(params, logit_bias={ord("b"): 50.0, ord("z"): 100.0}))
        assert biased.text == "bbbbb"
        with pytest.raises(Exception, match="no token is allowed"):
            await engine.complete("x", replace(params, allowed_token_ids=(ord("z"),)))
        assert engine.healthy


async def test_a_grammar_that_grows_beyond_its_bounds_ends_its_own_request_only() -> None:
    schema = {
        "type": "object",
        "properties": {f"property_{i}": {"type": "integer"} for i in range(1500)},
        "additionalProperties": False,
    }
    async with AsyncEngine(MODEL) as engine:
        work = asyncio.ensure_future(run(engine, 6))
        with pytest.raises(Exception, match=r"grammar .* 2000"):
            await engine.complete("x", replace(GREEDY, grammar=GrammarSpec.json_schema(schema)))
        check(await work)
        assert engine.healthy
        await all_pages_back(engine)


def test_the_synchronous_engine_takes_grammars_too() -> None:
    with Engine(MODEL) as engine:
        params = replace(GREEDY, grammar=SPECS[3])
        completions = engine.generate([f"Prompt {i}" for i in range(5)], params)
        assert [outcome(one) for one in completions] == [expected(SPECS[3], f"Prompt {i}") for i in range(5)]
        assert "".join(delta.text for delta in engine.stream("Prompt 1", params)) == completions[1].text
        with pytest.raises(RequestError, match="unclosed group"):
            engine.generate("x", replace(GREEDY, grammar=GrammarSpec.regex("(")))
