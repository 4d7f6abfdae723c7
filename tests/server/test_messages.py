"""`/v1/messages`: exact answers, the order of events, errors in Anthropic's shape, counting."""

from __future__ import annotations

import json

import pytest

from cupola.engine.request import SamplingParams
from cupola.protocol.anthropic import MessagesRequest
from cupola.protocol.generation import Usage
from cupola.server.message_frames import MessageFrames
from cupola.server.reply import ReplyDelta
from cupola.server.services import ServerSettings
from cupola.text.reply_parser import (
    ContentDelta,
    ReasoningDelta,
    ReplyEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from stand import Stand, open_stand

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
USER = [{"role": "user", "content": "hi"}]
BASE = {"model": "scripted", "max_tokens": 12, "temperature": 0, "messages": USER}


def events(text: str) -> list[dict[str, object]]:
    """The events of a stream; each says its type twice, and no `[DONE]` follows."""
    found = []
    *frames, end = text.split("\n\n")
    assert end == ""
    for frame in frames:
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def assembled(found: list[dict[str, object]]) -> dict[str, object]:
    """The message that the events tell; fails where their order is not Anthropic's."""
    first, *middle, last, stop = [event for event in found if event["type"] != "ping"]
    assert (first["type"], last["type"], stop) == ("message_start", "message_delta", {"type": "message_stop"})
    message = first["message"]
    assert message["content"] == []
    assert (message["stop_reason"], message["stop_sequence"]) == (None, None)
    open_index, arguments = None, ""
    for event in middle:
        match event["type"]:
            case "content_block_start":
                assert open_index is None
                assert event["index"] == len(message["content"])
                open_index, arguments = event["index"], ""
                message["content"].append(event["content_block"])
            case "content_block_delta":
                assert event["index"] == open_index
                block, delta = message["content"][-1], event["delta"]
                match delta["type"], block["type"]:
                    case "text_delta", "text":
                        block["text"] += delta["text"]
                    case "thinking_delta", "thinking":
                        block["thinking"] += delta["thinking"]
                    case "signature_delta", "thinking":
                        block["signature"] = delta["signature"]
                    case "input_json_delta", "tool_use":
                        arguments += delta["partial_json"]
                    case other:
                        pytest.fail(f"{other} do not go together")
            case "content_block_stop":
                assert event["index"] == open_index
                open_index = None
                if arguments:
                    message["content"][-1]["input"] = json.loads(arguments)
            case other:
                pytest.fail(f"unexpected event {other}")
    assert open_index is None
    return message | last["delta"] | {"usage": last["usage"]}


async def test_the_answer_is_the_engines(stand: Stand) -> None:
    expected = await stand.engine.chat(USER, SamplingParams(temperature=0, max_tokens=12))
    response = await stand.client.post(MESSAGES, json=BASE)
    answer = response.json()
    assert answer.pop("id").startswith("msg_")
    cached = expected.usage.prompt_tokens - 1
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": expected.text}],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": 12,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }
    assert response.headers["request-id"] == response.headers["x-request-id"]


async def test_the_stream_is_the_same_answer(stand: Stand) -> None:
    await stand.client.post(MESSAGES, json=BASE)
    whole = (await stand.client.post(MESSAGES, json=BASE)).json()
    response = await stand.client.post(MESSAGES, json=BASE | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    assert [event["type"] for event in found[:3]] == ["message_start", "ping", "content_block_start"]
    usage = found[0]["message"]["usage"]
    assert usage["input_tokens"] == whole["usage"]["input_tokens"] + whole["usage"]["cache_read_input_tokens"]
    assert assembled(found) | {"id": ""} == whole | {"id": ""}


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_sequences_are_told(stand: Stand, stream: bool) -> None:
    async def ask(**fields: object) -> dict[str, object]:
        response = await stand.client.post(MESSAGES, json=BASE | {"stream": stream} | fields)
        return assembled(events(response.text)) if stream else response.json()

    text = (await ask())["content"][0]["text"]
    stop = text[4:6]
    answer = await ask(stop_sequences=["###", stop])
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", stop)
    assert answer["content"][0]["text"] == text[: text.index(stop)]
    nothing = await ask(stop_sequences=[text[0]])
    assert (nothing["content"], nothing["stop_reason"]) == ([], "stop_sequence")


async def test_the_models_own_end_and_the_contexts() -> None:
    async with open_stand("scripted:eos_every=8") as stand:
        answer = (await stand.client.post(MESSAGES, json=BASE | {"max_tokens": 500})).json()
        assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    async with open_stand() as stand:
        answer = (await stand.client.post(MESSAGES, json=BASE | {"max_tokens": 100_000})).json()
        assert answer["stop_reason"] == "model_context_window_exceeded"
        usage = answer["usage"]
        tokens = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["output_tokens"]
        assert tokens == stand.engine.config.max_context
        nothing = (await stand.client.post(MESSAGES, json=BASE | {"max_tokens": 0})).json()
        assert (nothing["content"], nothing["stop_reason"]) == ([], "max_tokens")
        too_long = BASE | {"messages": [{"role": "user", "content": "x" * 5000}]}
        error = (await stand.client.post(MESSAGES, json=too_long)).json()["error"]
        assert error["details"] == {"error_code": "context_length_exceeded", "param": "messages"}


async def test_system_and_blocks_reach_the_template(stand: Stand) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *USER]
    expected = await stand.engine.chat(messages, SamplingParams(temperature=0, max_tokens=12))
    forms: list[dict[str, object]] = [
        {"system": "Be brief."},
        {
            "system": [
                {"type": "text", "text": "Be ", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "brief."},
            ]
        },
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            ]
        },
    ]
    for form in forms:
        assert (await stand.client.post(MESSAGES, json=BASE | form)).json()["content"][0]["text"] == expected.text


async def test_a_schema_binds_the_text(stand: Stand) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
    for fields in (
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"output_format": {"type": "json_schema", "schema": schema}},
    ):
        answer = (await stand.client.post(MESSAGES, json=BASE | {"max_tokens": 50} | fields)).json()
        assert json.loads(answer["content"][0]["text"]) == {"a": "x"}
        assert answer["stop_reason"] == "end_turn"
    bad = BASE | {"output_config": {"format": {"type": "json_schema", "schema": {"type": "thing"}}}}
    error = (await stand.client.post(MESSAGES, json=bad)).json()["error"]
    assert error["details"] == {"error_code": "invalid_schema", "param": "output_config.format"}


async def test_tokens_are_counted_as_they_are_read(stand: Stand) -> None:
    context = {"model": "scripted", "system": "Be brief.", "messages": USER}
    count = (await stand.client.post(COUNT, json=context)).json()
    usage = (await stand.client.post(MESSAGES, json=context | {"max_tokens": 1})).json()["usage"]
    assert count == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
    error = await stand.client.post(COUNT, json=context | {"messages": []})
    assert (error.status_code, error.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("fields", "status", "kind", "code", "param"),
    [
        ({"model": "other"}, 404, "not_found_error", "model_not_found", "model"),
        ({"n": 2}, 400, "invalid_request_error", "unsupported_parameter", "n"),
        ({"stop_sequences": [1]}, 400, "invalid_request_error", "invalid_type", "stop_sequences.0"),
        (
            {"messages": [*USER, {"role": "assistant", "content": "I"}]},
            400,
            "invalid_request_error",
            "invalid_value",
            "messages",
        ),
        (
            {"system": "s", "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
            400,
            "invalid_request_error",
            "invalid_value",
            "messages.0",
        ),
        (
            {
                "system": "s",
                "messages": [
                    *USER,
                    {"role": "assistant", "content": "a"},
                    {
                        "role": "user",
                        "content": [{"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}],
                    },
                ],
            },
            400,
            "invalid_request_error",
            "unsupported_parameter",
            "messages.2",
        ),
        (
            {"tools": [{"name": "a b", "input_schema": {"type": "object"}}]},
            400,
            "invalid_request_error",
            "invalid_value",
            "tools.0.name",
        ),
        ({"tool_choice": {"type": "any"}}, 400, "invalid_request_error", "invalid_value", "tool_choice"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_have_anthropics_shape(
    stand: Stand, fields: dict[str, object], status: int, kind: str, code: str, param: str, stream: bool
) -> None:
    answer = await stand.client.post(MESSAGES, json=BASE | fields | {"stream": stream}, headers={"x-request-id": "r-1"})
    body = answer.json()
    assert (answer.status_code, body["type"], body["request_id"]) == (status, "error", "r-1")
    assert body["error"]["type"] == kind
    assert body["error"]["details"] == {"error_code": code, "param": param}
    assert status == 404 or f"`{param}`" in body["error"]["message"]


async def test_the_layers_around_it_speak_the_same(stand: Stand) -> None:
    batch = await stand.client.post("/v1/messages/batches", json={})
    assert (batch.status_code, batch.json()["error"]["type"]) == (404, "not_found_error")
    get = await stand.client.get(MESSAGES)
    assert (get.status_code, get.json()["type"]) == (405, "error")
    text = await stand.client.post(MESSAGES, content=b"{", headers={"content-type": "application/json"})
    assert text.json()["error"]["details"] == {"error_code": "invalid_json"}
    stand.lifecycle.begin_drain()
    refused = await stand.client.post(MESSAGES, json=BASE)
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "overloaded_error")


async def test_both_headers_carry_the_key() -> None:
    async with open_stand(settings=ServerSettings(api_keys=("secret",))) as stand:
        for headers, status in (
            ({}, 401),
            ({"x-api-key": "secret"}, 200),
            ({"authorization": "Bearer secret"}, 200),
            ({"x-api-key": "wrong"}, 401),
            ({"x-api-key": "secret", "authorization": "Bearer wrong"}, 401),
            ({"x-api-key": "secret", "authorization": "Basic x"}, 200),
        ):
            version = {"anthropic-version": "2023-06-01", "anthropic-beta": "some-2026-01-01"}
            answer = await stand.client.post(f"{MESSAGES}?beta=true", json=BASE, headers=version | headers)
            assert answer.status_code == status
            if status == 401:
                assert answer.json()["error"]["type"] == "authentication_error"


async def test_a_failure_in_the_middle_is_the_last_event() -> None:
    async with open_stand("scripted:fail_at_step=5") as stand:
        text = (await stand.client.post(MESSAGES, json=BASE | {"stream": True})).text
        *others, last = events(text)
        assert [event["type"] for event in others[:2]] == ["message_start", "ping"]
        assert last["type"] == "error"
        assert last["error"]["type"] == "api_error"
        assert "message_stop" not in text


class FakeReply:
    """As much of a reply as the frames look at before its first token."""

    usage = Usage.of(7, 0, 0)


def streamed(replies: list[tuple[ReplyEvent, ...]], finish: str = "stop", **fields: object) -> str:
    """The stream of a reply with these events, one delta each."""
    body = MessagesRequest.model_validate(BASE | fields)
    frames = MessageFrames("msg_1", "m", body, FakeReply())  # type: ignore[arg-type]
    parts = [frames.begin(0)]
    for delta in [ReplyDelta(found) for found in replies] + [ReplyDelta((), finish=finish)]:
        parts += [frames.more(0, delta), frames.finish(0, delta)]
    return (b"".join(parts) + frames.usage(Usage.of(7, 5, 3, 2))).decode()


CALLS = [
    (ReasoningDelta("let me"), ReasoningDelta(" see")),
    (ContentDelta("I'll look."), ToolCallBegin(0, "call_1", "get")),
    (ToolCallArguments(0, '{"city":'),),
    (ToolCallArguments(0, ' "Köln"}'), ToolCallEnd(0), ToolCallBegin(1, "call_2", "now"), ToolCallEnd(1)),
]


def test_every_kind_of_block_is_streamed() -> None:
    message = assembled(events(streamed(CALLS, "tool_calls")))
    thinking, *others = message["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "let me see")
    assert thinking["signature"].startswith("shown.")
    assert others == [
        {"type": "text", "text": "I'll look."},
        {"type": "tool_use", "id": "call_1", "name": "get", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
    ]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"] == {
        "input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 3,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 2},
    }


def test_thoughts_that_are_not_wanted_go_into_the_signature() -> None:
    text = streamed(CALLS, "tool_calls", thinking={"type": "adaptive", "display": "omitted"})
    assert "let me" not in text
    thinking = assembled(events(text))["content"][0]
    assert thinking["thinking"] == ""
    assert thinking["signature"].startswith("hidden.")


def test_a_block_that_is_open_at_the_end_is_closed() -> None:
    assert assembled(events(streamed([(ReasoningDelta("so"),)], "length")))["content"][0]["thinking"] == "so"
    cut = events(streamed([(ToolCallBegin(0, "1", "f"), ToolCallArguments(0, "{}"))], "length"))
    assert assembled(cut)["content"][0]["input"] == {}
    assert assembled(events(streamed([])))["content"] == []
