"""Requests: what is accepted, what is dropped, what is refused, and under which name."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from cupola.protocol.chat import ChatCompletionRequest
from cupola.protocol.completions import CompletionRequest
from cupola.protocol.errors import validation_error
from cupola.protocol.generation import GenerationFields
from cupola.protocol.score import ScoreRequest

USER = [{"role": "user", "content": "hi"}]


def chat(**fields: object) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate_json(json.dumps({"model": "m", "messages": USER} | fields))


def completion(**fields: object) -> CompletionRequest:
    return CompletionRequest.model_validate_json(json.dumps({"model": "m", "prompt": "hi"} | fields))


def refusal(parse: type[GenerationFields], body: bytes | Mapping[str, object]) -> tuple[str | None, str | None, str]:
    """(param, code, message) of the error for a body that has to be refused."""
    with pytest.raises(ValidationError) as caught:
        parse.model_validate_json(body if isinstance(body, bytes) else json.dumps(body))
    error = validation_error(caught.value)
    assert error.status == 400
    return error.param, error.code, error.message


@pytest.mark.parametrize("name", sorted(GenerationFields.IGNORED))
def test_harmless_fields_are_accepted_and_dropped(name: str) -> None:
    assert chat(**{name: {"any": "thing"}}) == chat()


@pytest.mark.parametrize(
    "fields",
    [
        {"functions": [], "function_call": "none", "modalities": ["text"], "audio": None},
        {"tools": None, "response_format": None, "logit_bias": None, "functions": None},
    ],
)
def test_fields_that_mean_off_are_accepted_and_dropped(fields: Mapping[str, object]) -> None:
    assert chat(**fields) == chat()


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [("functions", [{"name": "f"}], "`tools`"), ("function_call", "auto", "`tool_choice`")],
)
def test_what_has_a_successor_is_refused_with_a_hint(name: str, value: object, instead: str) -> None:
    param, code, message = refusal(ChatCompletionRequest, {"model": "m", "messages": USER, name: value})
    assert (param, code) == (name, "unsupported_parameter")
    assert f"`{name}`" in message
    assert instead in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("web_search_options", {}),
        ("temprature", 0.5),
        ("unheard_of", None),
    ],
)
def test_other_fields_are_refused_by_name(name: str, value: object) -> None:
    param, code, message = refusal(ChatCompletionRequest, {"model": "m", "messages": USER, name: value})
    assert (param, code) == (name, "unsupported_parameter")
    assert f"`{name}`" in message


def test_best_of_may_only_say_what_n_says() -> None:
    assert completion(best_of=3, n=3).best_of == 3
    param, code, _ = refusal(CompletionRequest, {"model": "m", "prompt": "hi", "best_of": 3})
    assert (param, code) == ("best_of", "invalid_value")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "warm"}, "temperature", "invalid_type"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"min_p": -1}, "min_p", "invalid_value"),
        ({"top_k": -2}, "top_k", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 1000}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": ["a"] * 33}, "stop", "invalid_value"),
        ({"stop": [""]}, "stop.0", "invalid_value"),
        ({"stop": 7}, "stop", "invalid_type"),
        ({"stop_token_ids": [-1]}, "stop_token_ids.0", "invalid_value"),
        ({"presence_penalty": 2.1}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": "much"}, "frequency_penalty", "invalid_type"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"logit_bias": {"7": 101}}, "logit_bias.7", "invalid_value"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1.[key]", "invalid_value"),
        ({"logit_bias": {"word": 1}}, "logit_bias.word.[key]", "invalid_type"),
        ({"allowed_token_ids": []}, "allowed_token_ids", "invalid_value"),
        ({"bad_words": [""]}, "bad_words.0", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"prompt_logprobs": 21}, "prompt_logprobs", "invalid_value"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "invalid_value"),
        ({"timeout": 0}, "timeout", "invalid_value"),
        ({"cache_salt": ""}, "cache_salt", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"foo": 1}}, "stream_options.foo", "unsupported_parameter"),
        ({"max_tokens": 3, "min_tokens": 4}, "min_tokens", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0", "invalid_value"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content", "invalid_type"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages.0.tool_calls.0.function",
            "missing_required_parameter",
        ),
        ({"tools": [{"type": "function"}]}, "tools.0.function", "missing_required_parameter"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0", "unsupported_parameter"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name", "missing_required_parameter"),
        ({"tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function", "missing_required_parameter"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice", "unsupported_parameter"),
        ({"reasoning_effort": "much"}, "reasoning_effort", "invalid_value"),
    ],
)
def test_errors_name_the_field(fields: Mapping[str, object], param: str, code: str) -> None:
    found = refusal(ChatCompletionRequest, {"model": "m", "messages": USER} | fields)
    assert found[:2] == (param, code)
    assert found[2].endswith(".")


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_missing_fields_are_named(missing: str) -> None:
    body = {"model": "m", "messages": USER}
    del body[missing]
    assert refusal(ChatCompletionRequest, body)[:2] == (missing, "missing_required_parameter")


def test_other_content_parts_are_refused_by_type() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": {"data": "x"}}]
    body = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    param, code, message = refusal(ChatCompletionRequest, body)
    assert (param, code) == ("messages.0.content.1", "unsupported_parameter")
    assert "`input_audio`" in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "m", "seed": ' + b"1" * 5000 + b"}",
    ],
    ids=["empty", "cut", "deep", "lone surrogate", "not utf-8", "huge number"],
)
def test_malformed_json_is_refused(body: bytes) -> None:
    assert refusal(ChatCompletionRequest, body)[:2] == (None, "invalid_json")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
def test_numbers_are_finite(number: bytes) -> None:
    body = b'{"model": "m", "prompt": "x", "temperature": ' + number + b"}"
    assert refusal(CompletionRequest, body)[0] == "temperature"


def test_text_is_joined_from_parts_and_every_role_is_known() -> None:
    parts = [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "world"}]
    roles = ["system", "developer", "user", "assistant", "tool"]
    request = chat(messages=[{"role": role, "content": parts} for role in roles])
    messages = request.conversation.messages
    assert [message.role for message in messages] == roles
    assert {message.text for message in messages} == {"Hello, world"}


def test_a_message_of_ours_may_be_sent_back() -> None:
    echoed = {"role": "assistant", "content": "x", "refusal": None, "annotations": [], "tool_calls": None}
    assert chat(messages=[echoed]) == chat(messages=[{"role": "assistant", "content": "x"}])


def test_the_newer_token_limit_wins() -> None:
    assert chat(max_tokens=5, max_completion_tokens=7).token_limit == 7
    assert chat(max_tokens=5).token_limit == 5
    assert chat().token_limit is None


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_prompts_take_four_forms(given: object, prompts: tuple[object, ...]) -> None:
    assert completion(prompt=given).prompt == prompts


@pytest.mark.parametrize("given", [[], [[]], [1, "a"], [True], [-1], [1.5], 3, {"text": "a"}, None])
def test_other_prompts_are_refused(given: object) -> None:
    assert refusal(CompletionRequest, {"model": "m", "prompt": given})[0] == "prompt"


def test_the_number_of_completions_is_bounded() -> None:
    assert refusal(CompletionRequest, {"model": "m", "prompt": ["a"] * 600, "n": 2})[:2] == ("n", "invalid_value")


@pytest.mark.parametrize("name", sorted(GenerationFields.model_fields.keys() - {"model"}))
def test_null_is_the_same_as_nothing(name: str) -> None:
    assert chat(**{name: None}) == chat()
    assert completion(**{name: None}) == completion()


def test_keys_of_logit_bias_are_numbers_in_strings() -> None:
    assert chat(logit_bias={"50256": -100, "7": 0.5}).logit_bias == {50256: -100.0, 7: 0.5}


def test_what_is_reported_beside_each_token() -> None:
    assert [chat(**fields).output_logprobs for fields in ({}, {"logprobs": False, "top_logprobs": 0})] == [None, None]
    assert [chat(logprobs=True, top_logprobs=top).output_logprobs for top in (None, 0, 5)] == [0, 0, 5]
    assert (completion(logprobs=3).output_logprobs, completion(logprobs=3).input_logprobs) == (3, None)
    assert completion(logprobs=3, echo=True).input_logprobs == 3
    assert completion(logprobs=3, echo=True, prompt_logprobs=5).input_logprobs == 5
    assert completion(echo=True).input_logprobs is None


def test_a_score_has_one_prompt() -> None:
    body = {"model": "m", "continuations": ["a", [1, 2]]}
    request = ScoreRequest.model_validate_json(json.dumps(body | {"prompt_token_ids": [4]}))
    assert (request.prompt, request.continuations) == (None, ("a", (1, 2)))
    for given in ({}, {"prompt": "x", "prompt_token_ids": [4]}, {"prompt": ""}, {"prompt": []}):
        with pytest.raises(ValidationError):
            ScoreRequest.model_validate_json(json.dumps(body | given))
    for continuations in ([], [""], [[]], "a", None):
        with pytest.raises(ValidationError):
            ScoreRequest.model_validate_json(json.dumps(body | {"prompt": "x", "continuations": continuations}))


def test_one_stop_string_needs_no_list() -> None:
    assert chat(stop="end") == chat(stop=["end"])
