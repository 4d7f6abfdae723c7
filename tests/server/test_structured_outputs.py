"""Structured output over HTTP: every field of it, its errors by the field's own name, and streams."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from cupola.engine import grammar_trial
from stand import CHAT, COMPLETIONS, Stand

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "visits": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["city", "visits"],
    "additionalProperties": False,
}
WRONG = {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "visit", "schema": SCHEMA, "strict": True}}


async def text_of(stand: Stand, path: str = COMPLETIONS, **fields: object) -> str:
    """The text of a request's only choice."""
    prompt = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {"prompt": "hi"}
    answer = await stand.client.post(path, json={"model": "scripted", "max_tokens": 60, **prompt, **fields})
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    return str(choice["text"] if path == COMPLETIONS else choice["message"]["content"])


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "fields",
    [{"response_format": FORMAT}, {"guided_json": SCHEMA}, {"structured_outputs": {"json": json.dumps(SCHEMA)}}],
)
async def test_json_fits_its_schema(stand: Stand, path: str, fields: dict[str, object]) -> None:
    jsonschema.validate(json.loads(await text_of(stand, path, **fields)), SCHEMA)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
        ({"structured_outputs": {"regex": "x[0-9]{3}"}}, "x[0-9]{3}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"structured_outputs": {"choice": ["one", "two"]}}, "one|two"),
        ({"guided_grammar": 'start: "<" /[a-z]{4}/ ">"'}, "<[a-z]{4}>"),
        ({"structured_outputs": {"grammar": 'root ::= "(" [0-9] ")"'}}, r"\([0-9]\)"),
        ({"response_format": {"type": "json_object"}, "max_tokens": 3}, r"\{.*"),
    ],
)
async def test_text_follows_its_pattern(stand: Stand, fields: dict[str, object], pattern: str) -> None:
    assert re.fullmatch(pattern, await text_of(stand, **fields))


async def test_a_stream_and_several_choices_follow_it_too(stand: Stand) -> None:
    body = {"model": "scripted", "prompt": "hi", "n": 3, "seed": 4, "stream": True, "response_format": FORMAT}
    frames = (await stand.client.post(COMPLETIONS, json=body)).text.split("\n\n")
    texts = {0: "", 1: "", 2: ""}
    for frame in frames[:-2]:
        choice = json.loads(frame.removeprefix("data: "))["choices"][0]
        texts[choice["index"]] += choice["text"]
    for text in texts.values():
        jsonschema.validate(json.loads(text), SCHEMA)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": WRONG}, "response_format", "schema"),
        ({"guided_json": "{"}, "guided_json", "schema"),
        ({"guided_regex": "("}, "guided_regex", "grammar"),
        ({"guided_choice": ["a\x00b"]}, "guided_choice", "grammar"),
        ({"structured_outputs": {"grammar": "start: missing"}}, "structured_outputs", "grammar"),
        ({"guided_json": {"enum": list(range(200_000))}}, "guided_json", "schema"),
    ],
)
async def test_what_cannot_be_compiled_is_a_400_that_names_the_field(
    stand: Stand, fields: dict[str, object], param: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_trial, "TRIAL_SECONDS", 0.5)
    answer = await stand.client.post(
        CHAT, json={"model": "scripted", "messages": [{"role": "user", "content": "x"}], **fields}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, f"invalid_{code}")
    assert stand.engine.stats().waiting == 0
    assert await text_of(stand, guided_choice=["fine"]) == "fine"
