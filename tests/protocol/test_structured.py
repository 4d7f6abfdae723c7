"""The fields for structured output: all the ways to write one constraint, and never two."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cupola.protocol.chat import ChatCompletionRequest
from cupola.protocol.errors import validation_error
from cupola.protocol.structured import Constraint

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def request(**fields: object) -> ChatCompletionRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return ChatCompletionRequest.model_validate(body)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint("response_format", "json_object", None)),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
                }
            },
            Constraint("response_format", "json_schema", SCHEMA),
        ),
        ({"structured_outputs": {"json": SCHEMA}}, Constraint("structured_outputs", "json_schema", SCHEMA)),
        ({"structured_outputs": {"json": "{}"}}, Constraint("structured_outputs", "json_schema", "{}")),
        ({"structured_outputs": {"json_object": True}}, Constraint("structured_outputs", "json_object", True)),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Constraint("structured_outputs", "choice", ("a", "b"))),
        ({"guided_json": True}, Constraint("guided_json", "json_schema", True)),
        ({"guided_regex": "a+"}, Constraint("guided_regex", "regex", "a+")),
        ({"guided_choice": ["x"], "response_format": {"type": "text"}}, Constraint("guided_choice", "choice", ("x",))),
        ({"guided_grammar": "start: A"}, Constraint("guided_grammar", "grammar", "start: A")),
    ],
)
def test_a_constraint_is_found_wherever_it_is_written(fields: dict[str, object], expected: Constraint | None) -> None:
    assert request(**fields).constraint == expected


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type", "xml"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "`json_schema` is needed"),
        ({"response_format": {"type": "text", "json_schema": {"schema": {}}}}, "response_format", "only with it"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format", "schema"),
        ({"structured_outputs": {}}, "structured_outputs", "exactly one"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "exactly one"),
        ({"structured_outputs": {"whitespace_pattern": "x"}}, "structured_outputs", "whitespace_pattern"),
        ({"guided_choice": []}, "guided_choice", "1"),
        ({"guided_choice": [""]}, "guided_choice", "1"),
        ({"guided_regex": 7}, "guided_regex", "string"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "cannot be combined with `guided_regex`"),
        (
            {"response_format": {"type": "json_object"}, "guided_json": {}},
            "guided_json",
            "cannot be combined with `response_format`",
        ),
    ],
)
def test_what_is_no_constraint_or_more_than_one_is_refused(fields: dict[str, object], param: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        request(**fields)
    error = validation_error(caught.value)
    assert error.status == 400
    assert (error.param or "").startswith(param)
    assert words in error.message
