"""Constrained generation on the real model: valid texts, forced tokens as its tokenizer writes them, fewer steps."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.engine import Engine
from cupola.engine.grammar import GrammarSpec
from cupola.engine.native_grammar import GrammarTokenizer
from cupola.engine.options import EngineOptions
from cupola.engine.request import FinishReason, SamplingParams
from cupola.text.tokenizer import Tokenizer
from cupola.text.vocabulary import read_vocabulary

pytestmark = pytest.mark.model

SCHEMA = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 16},
        "year_of_birth": {"type": "integer", "minimum": 1900, "maximum": 2020},
        "favourite_colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string", "maxLength": 20}, "city": {"enum": ["Paris", "Rome"]}},
            "required": ["street", "city"],
            "additionalProperties": False,
        },
    },
    "required": ["first_name", "year_of_birth", "favourite_colours", "address"],
    "additionalProperties": False,
}
GREEDY = SamplingParams(temperature=0.0, max_tokens=160, grammar=GrammarSpec.json_schema(SCHEMA))
QUESTION = [{"role": "user", "content": "Describe a person as JSON."}]


@pytest.fixture(scope="module")
def tokenizer(compiled_smollm2: Path) -> Tokenizer:
    """SmolLM2's."""
    return Tokenizer.from_file(compiled_smollm2 / "tokenizer.json")


@pytest.fixture(scope="module")
def grammar_tokenizer(tokenizer: Tokenizer) -> GrammarTokenizer:
    """The same vocabulary for grammars."""
    return GrammarTokenizer(read_vocabulary(tokenizer, tokenizer.vocab_size), [2])


@pytest.mark.parametrize(
    "text",
    [
        '{"first_name": "John", "age": 34, "tags": ["a", "b"], "x": null, "y": -1.5e3}',
        '{\n  "first": 1,\n    "second": {\n        "third": [true, false]\n    }\n}\n',
        "Hello world, it's a 'quoted' string; and\ttabs   and spaces  12 345",
        "SELECT name, COUNT(*) FROM towns WHERE size >= 1000 AND note <> 'x' GROUP BY name;",
        "2024-01-15T10:00:00Z 192.168.10.255 https://example.com/a?b=c#d",
        "größe: 5 €, 中文 テスト, naïve café 🙂",
        "<answer>\n<reason>because</reason>\n</answer>",
        "def f(x: int) -> int:\n    return x ** 2  # squares\n",
    ],
)
def test_forced_text_is_written_as_the_tokenizer_writes_it(
    tokenizer: Tokenizer, grammar_tokenizer: GrammarTokenizer, text: str
) -> None:
    assert grammar_tokenizer.encode(text.encode()) == tokenizer.encode(text, add_special_tokens=False)


def test_the_text_fits_and_is_the_same_with_and_without_forced_tokens(compiled_smollm2: Path) -> None:
    with Engine(str(compiled_smollm2)) as engine:
        begin = engine.stats().steps
        jumping = engine.chat(QUESTION, GREEDY)
        steps = engine.stats().steps - begin
        # Log-probabilities are wanted of every token, so nothing is jumped over.
        walking = engine.chat(QUESTION, replace(GREEDY, logprobs=0))
    assert jumping.finish_reason is FinishReason.STOP
    jsonschema.validate(json.loads(jumping.text), SCHEMA)
    assert jumping.token_ids == walking.token_ids
    assert steps < 0.7 * len(jumping.token_ids)


async def test_batch_pages_and_neighbours_change_nothing(compiled_smollm2: Path) -> None:
    specs = [
        GREEDY.grammar,
        GrammarSpec.regex(r"[A-Z][a-z]{2,12} was born in (19|20)[0-9]{2}\."),
        GrammarSpec.choice(["a person", "a dog", "somebody else"]),
        None,
    ]
    params = [replace(GREEDY, grammar=spec, max_tokens=60) for spec in specs] * 3
    prompts = [f"Number {i} is" for i in range(len(params))]

    async def texts(options: EngineOptions) -> list[str]:
        async with AsyncEngine(str(compiled_smollm2), config=replace(options, verify_files=False)) as engine:
            work = (engine.complete(prompt, one) for prompt, one in zip(prompts, params, strict=True))
            found = [completion.text for completion in await asyncio.gather(*work)]
            if options.admission == "optimistic":
                assert engine.stats().preemptions > 0
            return found

    roomy = await texts(EngineOptions(num_pages=200))
    assert await texts(EngineOptions(num_pages=6, max_batch=8, max_step_tokens=24, admission="optimistic")) == roomy
    assert re.fullmatch(r"[A-Z][a-z]{2,12} was born in (19|20)[0-9]{2}\.", roomy[1])
    assert roomy[2] in ("a person", "a dog", "somebody else")
