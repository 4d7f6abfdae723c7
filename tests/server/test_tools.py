"""Tools on `/v1/chat/completions`: bound calls, streams, conversations of several turns, refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping

import httpx
import jsonschema
import pytest

from stand import CHAT, Stand

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome", "Oslo"]},
        "days": {"type": "integer", "maximum": 9, "minimum": 1},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": SCHEMA}}
NOW = {"type": "function", "function": {"name": "now"}}
USER = {"role": "user", "content": "What is the weather?"}


def body(**fields: object) -> dict[str, object]:
    return {"model": "scripted", "messages": [USER], "temperature": 0, "tools": [WEATHER, NOW]} | fields


def events(response: httpx.Response) -> list[dict]:
    *frames, end = response.text.split("\n\n")
    assert end == ""
    assert frames.pop() == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def check(call: Mapping[str, object]) -> None:
    """A call in OpenAI's shape whose arguments fit."""
    assert set(call) == {"id", "type", "function"}
    assert call["type"] == "function"
    assert str(call["id"]).startswith("call_")
    function = call["function"]
    assert isinstance(function, dict)
    if function["name"] == "get_weather":
        jsonschema.validate(json.loads(function["arguments"]), SCHEMA)
    else:
        assert (function["name"], function["arguments"]) == ("now", "{}")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("parallel", [True, False])
async def test_calls_that_are_asked_for_come(stand: Stand, choice: object, parallel: bool) -> None:
    answer = (
        await stand.client.post(CHAT, json=body(tool_choice=choice, parallel_tool_calls=parallel, max_tokens=2000))
    ).json()
    [found] = answer["choices"]
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["role"] == "assistant"
    assert found["message"]["content"] is None
    calls = found["message"]["tool_calls"]
    for call in calls:
        check(call)
    assert len({call["id"] for call in calls}) == len(calls)
    if isinstance(choice, dict):
        assert [call["function"]["name"] for call in calls] == ["get_weather"]
    elif not parallel:
        assert len(calls) == 1


async def test_a_stream_tells_calls_in_pieces_that_make_the_whole(stand: Stand) -> None:
    asked = body(tool_choice="required", seed=3, max_tokens=2000)
    [whole] = (await stand.client.post(CHAT, json=asked)).json()["choices"]
    stream = events(await stand.client.post(CHAT, json=asked | {"stream": True}))
    assert stream[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert stream[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
    calls: list[dict] = []
    for event in stream[1:-1]:
        [delta] = event["choices"][0]["delta"]["tool_calls"]
        if "id" in delta:
            assert delta["index"] == len(calls)
            assert delta["type"] == "function"
            assert delta["function"]["arguments"] == ""
            calls.append({"name": delta["function"]["name"], "arguments": ""})
        else:
            assert set(delta) == {"index", "function"}
            calls[delta["index"]]["arguments"] += delta["function"]["arguments"]
    assert calls == [call["function"] for call in whole["message"]["tool_calls"]]


async def test_the_limit_of_tokens_cuts_a_call_and_says_so(stand: Stand) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    asked = body(tool_choice=choice, max_tokens=70)
    [found] = (await stand.client.post(CHAT, json=asked)).json()["choices"]
    assert found["finish_reason"] == "length"
    [call] = found["message"]["tool_calls"]
    assert call["function"]["arguments"].startswith('{"city"')


async def test_choices_call_each_in_its_own_way(stand: Stand) -> None:
    answer = (
        await stand.client.post(CHAT, json=body(tool_choice="required", n=3, temperature=2, seed=1, max_tokens=2000))
    ).json()
    for found in answer["choices"]:
        assert found["finish_reason"] == "tool_calls"
        for call in found["message"]["tool_calls"]:
            check(call)
    ids = [call["id"] for found in answer["choices"] for call in found["message"]["tool_calls"]]
    assert len(set(ids)) == len(ids)


async def test_free_replies_are_content(stand: Stand) -> None:
    for choice in ("auto", "none", None):
        [found] = (await stand.client.post(CHAT, json=body(tool_choice=choice, max_tokens=20))).json()["choices"]
        assert len(found["message"]["content"]) == 20
        assert "tool_calls" not in found["message"]
        assert found["finish_reason"] == "length"


async def test_a_strict_tool_leaves_content_free(stand: Stand) -> None:
    strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}
    [found] = (await stand.client.post(CHAT, json=body(tools=[strict], max_tokens=20))).json()["choices"]
    assert len(found["message"]["content"]) == 20


async def test_log_probabilities_tell_every_token_once(stand: Stand) -> None:
    asked = body(tool_choice="required", parallel_tool_calls=False, logprobs=True, return_token_ids=True)
    [found] = (await stand.client.post(CHAT, json=asked)).json()["choices"]
    told = b"".join(bytes(entry["bytes"]) for entry in found["logprobs"]["content"]).decode()
    assert told.startswith("<tool_call>\n")
    assert len(found["logprobs"]["content"]) == len(found["token_ids"])
    stream = events(await stand.client.post(CHAT, json=asked | {"stream": True}))
    parts = [event["choices"][0] for event in stream]
    entries = [entry for part in parts for entry in (part["logprobs"] or {"content": []})["content"]]
    assert entries == found["logprobs"]["content"]
    assert [token for part in parts for token in part.get("token_ids", [])] == found["token_ids"]


def turns(*more: Mapping[str, object]) -> list[Mapping[str, object]]:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    return [USER, asked, {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"}, *more]


async def test_a_conversation_with_tools_goes_on(stand: Stand) -> None:
    first = (await stand.client.post(CHAT, json=body(tool_choice="required", max_tokens=2000))).json()
    message = first["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "Rain"}]}
        for call in message["tool_calls"]
    ]
    second = await stand.client.post(CHAT, json=body(messages=[USER, message, *results], max_tokens=5))
    assert second.status_code == 200
    assert second.json()["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]


async def test_calls_and_results_are_in_the_prompt(stand: Stand) -> None:
    """The scripted model's template knows no tools: they stand in the text, in the form of Hermes."""
    asked = body(messages=turns(), return_token_ids=True, max_tokens=1)
    ids = (await stand.client.post(CHAT, json=asked)).json()["prompt_token_ids"]
    prompt = bytes(token for token in ids if token < 256).decode()
    assert '"name": "get_weather", "description": "Weather."' in prompt
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>' in prompt
    assert "<tool_response>\nSunny\n</tool_response>" in prompt


def call_of(name: str, arguments: str, call_id: str = "c") -> dict[str, object]:
    return {"role": "assistant", "tool_calls": [{"id": call_id, "function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": [USER, turns()[2]]}, "messages.1.tool_call_id", "`call_1`"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages.1.tool_call_id", "role `tool`"),
        ({"messages": [USER | {"tool_call_id": "x"}]}, "messages.0.tool_call_id", "only there"),
        (
            {"messages": [USER | {"tool_calls": turns()[1]["tool_calls"]}]},
            "messages.0.tool_calls",
            "only the assistant",
        ),
        ({"messages": [call_of("f g", "{}")]}, "messages.0.tool_calls.0.function.name", "`f g`"),
        ({"messages": [call_of("f", "{")]}, "messages.0.tool_calls.0.function.arguments", "JSON object"),
        ({"messages": [call_of("f", "[1]")]}, "messages.0.tool_calls.0.function.arguments", "JSON object"),
        ({"tools": [NOW, NOW]}, "tools.1.function.name", "`now`"),
        ({"tools": [{"type": "function", "function": {"name": "a.b"}}]}, "tools.0.function.name", "`a.b`"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "`tools`"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "`f`"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
            "messages.0.content.0",
            "images",
        ),
    ],
)
async def test_what_does_not_fit_together_is_refused(
    stand: Stand, fields: Mapping[str, object], param: str, words: str
) -> None:
    for stream in (False, True):
        response = await stand.client.post(CHAT, json=body(**fields, stream=stream))
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param)
        assert words in error["message"]
        assert f"`{param}`" in error["message"]


async def test_a_schema_that_no_grammar_can_follow_is_refused_by_name(stand: Stand) -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "nonsense"}}}
    response = await stand.client.post(CHAT, json=body(tools=[tool], tool_choice="required"))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools"


async def test_a_text_that_is_bound_may_give_way_to_calls(stand: Stand) -> None:
    schema = {"name": "n", "schema": {"type": "integer", "minimum": 0, "maximum": 9}}
    asked = body(response_format={"type": "json_schema", "json_schema": schema}, max_tokens=2000)
    [found] = (await stand.client.post(CHAT, json=asked)).json()["choices"]
    message = found["message"]
    if message.get("tool_calls"):
        assert found["finish_reason"] == "tool_calls"
        for call in message["tool_calls"]:
            check(call)
    else:
        assert 0 <= int(message["content"]) <= 9
