"""`/v1/responses` on the scripted backend: what is read, kept, found, cancelled, refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from openai.types.responses import Response as SdkResponse

from cupola.engine.options import EngineOptions
from cupola.server.responses_store import StoreLimits
from cupola.server.services import ServerSettings
from stand import CHAT, Stand, open_stand, until

RESPONSES = "/v1/responses"
PLAIN = {"model": "scripted", "input": "Hello", "max_output_tokens": 8, "temperature": 0}
USER = {"role": "user", "content": "x"}
BAD_FORMAT = {"type": "json_schema", "name": "x", "schema": {"type": "wat"}}
Json = dict[str, object]


async def ask(stand: Stand, **fields: object) -> Json:
    """A response that has to come about, checked against the official type."""
    answer = await stand.client.post(RESPONSES, json=PLAIN | fields)
    assert answer.status_code == 200, answer.text
    SdkResponse.model_validate(answer.json())
    return answer.json()


def text_of(response: Json) -> str:
    """What the message says."""
    [message] = [item for item in response["output"] if item["type"] == "message"]
    [part] = message["content"]
    return part["text"]


async def chat(stand: Stand, *messages: tuple[str, str]) -> str:
    """The same question put to the chat endpoint."""
    body = {"model": "scripted", "max_tokens": 8, "temperature": 0}
    body["messages"] = [{"role": role, "content": content} for role, content in messages]
    return (await stand.client.post(CHAT, json=body)).json()["choices"][0]["message"]["content"]


def refused(answer: httpx.Response, status: int, code: str, param: str | None) -> None:
    """An error of this kind, in the right shape."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
    assert set(error) == {"message", "type", "param", "code"}


async def test_a_response_is_what_chat_says(stand: Stand) -> None:
    response = await ask(stand, instructions="Be kind.")
    assert text_of(response) == await chat(stand, ("system", "Be kind."), ("user", "Hello"))
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["usage"]["output_tokens"] == 8


async def test_a_stream_tells_the_same_response(stand: Stand) -> None:
    whole = await ask(stand)
    answer = await stand.client.post(RESPONSES, json=PLAIN | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("}\n\n")
    assert "[DONE]" not in answer.text
    events = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    streamed = events[-1]["response"]
    assert text_of(streamed) == text_of(whole)
    kept = (await stand.client.get(f"{RESPONSES}/{streamed['id']}")).json()
    assert kept == streamed
    for response in (whole, streamed):
        response["usage"]["input_tokens_details"] = response["id"] = response["created_at"] = "?"
        response["output"][0]["id"] = "?"
    assert whole == streamed


async def test_everything_that_was_asked_is_repeated(stand: Stand) -> None:
    tool = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False}
    asked: Json = {
        "instructions": "i",
        "max_output_tokens": 5,
        "max_tool_calls": 3,
        "metadata": {"k": "v"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "pk",
        "prompt_cache_retention": "24h",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "store": False,
        "temperature": 0.5,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "integer"}, "strict": True}},
        "tool_choice": "none",
        "tools": [tool],
        "top_logprobs": 2,
        "top_p": 0.25,
        "truncation": "auto",
        "user": "u",
    }
    response = await ask(stand, **asked, service_tier="flex", background=False)
    asked["text"] |= {"verbosity": "medium"}
    assert {name: response[name] for name in asked} == asked
    assert (response["service_tier"], response["background"], response["model"]) == ("default", False, "scripted")


async def test_what_was_not_asked_is_told_as_it_was_understood(stand: Stand) -> None:
    response = await ask(stand, temperature=None, prompt_cache_retention="in-memory")
    assert response["prompt_cache_retention"] == "in_memory"
    defaults = stand.engine.default_params
    assert (response["temperature"], response["top_p"]) == (defaults.temperature, defaults.top_p)
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert response["reasoning"] == {"effort": None, "summary": None}
    assert (response["tool_choice"], response["tools"], response["truncation"]) == ("auto", [], "disabled")
    assert (response["store"], response["metadata"], response["parallel_tool_calls"]) == (True, {}, True)


@pytest.mark.parametrize("choice", [{"type": "function", "name": "f"}, "auto"])
async def test_the_choice_of_a_tool_is_repeated_in_its_own_form(stand: Stand, choice: object) -> None:
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]
    response = await ask(stand, tools=tools, tool_choice=choice)
    assert response["tool_choice"] == choice
    assert response["tools"] == [tools[0] | {"description": None, "strict": False}]


async def test_a_conversation_goes_on(stand: Stand) -> None:
    first = await ask(stand, instructions="Only for the first.")
    second = await ask(stand, input="And?", previous_response_id=first["id"])
    said = [("user", "Hello"), ("assistant", text_of(first)), ("user", "And?")]
    assert text_of(second) == await chat(stand, *said), "the instructions do not carry over"
    assert second["previous_response_id"] == first["id"]
    third = await ask(stand, input="So?", previous_response_id=second["id"])
    assert text_of(third) == await chat(stand, *said, ("assistant", text_of(second)), ("user", "So?"))
    by_hand = [{"role": "user", "content": "Hello"}, *first["output"], {"role": "user", "content": "And?"}]
    assert text_of(await ask(stand, input=by_hand)) == text_of(second)
    reference = [{"role": "user", "content": "Hello"}, {"id": first["output"][0]["id"]}, by_hand[-1]]
    assert text_of(await ask(stand, input=reference)) == text_of(second)


async def test_input_items_come_page_by_page(stand: Stand) -> None:
    first = await ask(stand, input=[{"role": "user", "content": str(i)} for i in range(5)])
    last = await ask(stand, input="end", previous_response_id=first["id"])
    url = f"{RESPONSES}/{last['id']}/input_items"
    newest = (await stand.client.get(url)).json()
    texts = [item["content"][0]["text"] for item in newest["data"]]
    assert texts == ["end", text_of(first), "4", "3", "2", "1", "0"]
    assert (newest["has_more"], newest["first_id"], newest["last_id"]) == (
        False, newest["data"][0]["id"], newest["data"][-1]["id"]
    )  # fmt: skip
    seen: list[str] = []
    query: dict[str, str] = {"order": "asc", "limit": "3"}
    while True:
        page = (await stand.client.get(url, params=query)).json()
        seen += [item["content"][0]["text"] for item in page["data"]]
        if not page["has_more"]:
            break
        query["after"] = page["last_id"]
    assert seen == texts[::-1]
    beyond = (await stand.client.get(url, params={"order": "asc", "after": newest["first_id"]})).json()
    assert beyond == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    refused(await stand.client.get(url, params={"limit": "101"}), 400, "invalid_value", "limit")
    refused(await stand.client.get(url, params={"after": "none"}), 404, "item_not_found", "after")
    refused(await stand.client.get(url, params={"before": "x"}), 400, "unsupported_parameter", "before")


async def test_nothing_is_kept_where_nothing_shall_be(stand: Stand) -> None:
    response = await ask(stand, store=False)
    refused(await stand.client.get(f"{RESPONSES}/{response['id']}"), 404, "response_not_found", "response_id")
    going_on = PLAIN | {"previous_response_id": response["id"]}
    refused(
        await stand.client.post(RESPONSES, json=going_on), 400, "previous_response_not_found", "previous_response_id"
    )
    reference = [{"type": "item_reference", "id": response["output"][0]["id"]}]
    refused(await stand.client.post(RESPONSES, json=PLAIN | {"input": reference}), 404, "item_not_found", "input.0")


async def test_what_is_deleted_is_gone(stand: Stand) -> None:
    response = await ask(stand)
    url = f"{RESPONSES}/{response['id']}"
    assert (await stand.client.delete(url)).json() == {"id": response["id"], "object": "response", "deleted": True}
    for answer in (
        await stand.client.get(url),
        await stand.client.delete(url),
        await stand.client.get(f"{url}/input_items"),
        await stand.client.post(f"{url}/cancel"),
    ):
        refused(answer, 404, "response_not_found", "response_id")


async def test_what_is_too_old_is_gone() -> None:
    settings = ServerSettings(responses=StoreLimits(seconds=0.0))
    async with open_stand(settings=settings) as stand:
        response = await ask(stand)
        refused(await stand.client.get(f"{RESPONSES}/{response['id']}"), 404, "response_not_found", "response_id")


async def test_each_key_has_its_own_responses() -> None:
    async with open_stand(settings=ServerSettings(api_keys=("one", "two"))) as stand:
        one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        response = (await stand.client.post(RESPONSES, json=PLAIN, headers=one)).json()
        url = f"{RESPONSES}/{response['id']}"
        assert (await stand.client.get(url, headers=one)).json() == response
        assert (await stand.client.get(url, headers={"x-api-key": "one"})).json() == response
        refused(await stand.client.get(url, headers=two), 404, "response_not_found", "response_id")
        refused(await stand.client.delete(url, headers=two), 404, "response_not_found", "response_id")
        going_on = PLAIN | {"previous_response_id": response["id"]}
        answer = await stand.client.post(RESPONSES, json=going_on, headers=two)
        refused(answer, 400, "previous_response_not_found", "previous_response_id")
        assert (await stand.client.get(url)).status_code == 401


async def test_input_tokens_are_those_that_a_response_has(stand: Stand) -> None:
    fields = {"instructions": "Be brief.", "input": [{"role": "user", "content": "Hello"}]}
    counted = await stand.client.post(f"{RESPONSES}/input_tokens", json={"model": "scripted"} | fields)
    response = await ask(stand, **fields)
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": response["usage"]["input_tokens"]}
    again = await stand.client.post(
        f"{RESPONSES}/input_tokens",
        json={"model": "scripted", "input": "And?", "previous_response_id": response["id"]},
    )
    assert again.json()["input_tokens"] > counted.json()["input_tokens"]


async def test_truncation_drops_the_oldest_turns_and_no_more() -> None:
    async with open_stand(options=EngineOptions(num_pages=64, max_context=200)) as stand:
        turns = [{"role": role, "content": f"{i}" * 20} for i in range(6) for role in ("user", "assistant")]
        fields: Json = {"input": [*turns, {"role": "user", "content": "end"}], "instructions": "Rules."}
        refused(await stand.client.post(RESPONSES, json=PLAIN | fields), 400, "context_length_exceeded", "input")
        response = await ask(stand, **fields, truncation="auto")
        kept = [("system", "Rules."), *((turn["role"], turn["content"]) for turn in turns[-4:]), ("user", "end")]
        assert text_of(response) == await chat(stand, *kept)
        more = [("system", "Rules."), *((turn["role"], turn["content"]) for turn in turns[-6:]), ("user", "end")]
        body = {"model": "scripted", "input": [{"role": r, "content": c} for r, c in more]}
        counted = (await stand.client.post(f"{RESPONSES}/input_tokens", json=body)).json()["input_tokens"]
        assert counted + 8 > 200, "one turn more would not have fitted"
        listed = (await stand.client.get(f"{RESPONSES}/{response['id']}/input_items")).json()
        assert len(listed["data"]) == 13, "what was sent is kept whole"
        too_long = PLAIN | {"input": "x" * 300, "truncation": "auto"}
        refused(await stand.client.post(RESPONSES, json=too_long), 400, "context_length_exceeded", "input")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"background": True}, "unsupported_parameter", "background"),
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "unsupported_parameter", "prompt"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"max_tokens": 2}, "unsupported_parameter", "max_tokens"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools.0"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "unsupported_parameter", "tools.0"),
        ({"tool_choice": {"type": "file_search"}}, "invalid_value", "tool_choice.type"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "unsupported_parameter", "input.0"),
        ({"input": [USER | {"content": [{"type": "input_file"}]}]}, "unsupported_parameter", "input.0.content.0"),
        ({"input": [{"role": "robot", "content": "x"}]}, "invalid_value", "input.0.role"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": None}, "invalid_value", "input"),
        ({"text": {"verbosity": "low"}}, "invalid_value", "text.verbosity"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "invalid_value", "text.format"),
        ({"reasoning": {"summary": "concise"}}, "invalid_value", "reasoning.summary"),
        ({"include": ["everything"]}, "invalid_value", "include.0"),
        ({"metadata": {"k": "v" * 513}}, "invalid_value", "metadata.k"),
        ({"stream_options": {"include_obfuscation": False}}, "invalid_value", "stream_options"),
        ({"max_output_tokens": 100_000}, "context_length_exceeded", "max_output_tokens"),
        ({"logit_bias": {"999": 1}}, "invalid_value", "logit_bias"),
        ({"text": {"format": BAD_FORMAT}}, "invalid_schema", "text.format"),
        ({"structured_outputs": {"regex": "("}}, "invalid_grammar", "structured_outputs"),
    ],
)
async def test_refusals_name_the_field(stand: Stand, fields: Json, code: str, param: str) -> None:
    for streamed in ({}, {"stream": True} if "stream_options" not in fields else {}):
        refused(await stand.client.post(RESPONSES, json=PLAIN | fields | streamed), 400, code, param)


async def test_a_response_cannot_be_streamed_again(stand: Stand) -> None:
    response = await ask(stand)
    answer = await stand.client.get(f"{RESPONSES}/{response['id']}", params={"stream": "true"})
    refused(answer, 400, "unsupported_parameter", "stream")


async def test_the_text_has_the_form_that_was_asked(stand: Stand) -> None:
    number = {"type": "integer", "minimum": 0, "maximum": 9}
    schema = {"type": "object", "properties": {"n": number}, "required": ["n"], "additionalProperties": False}
    text = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    response = await ask(stand, text=text, max_output_tokens=50)
    assert response["status"] == "completed"
    assert json.loads(text_of(response))["n"] in range(10)
    chosen = await ask(stand, structured_outputs={"choice": ["yes"]}, top_k=3, seed=1)
    assert text_of(chosen) == "yes"


async def test_log_probabilities(stand: Stand) -> None:
    response = await ask(stand, include=["message.output_text.logprobs"], top_logprobs=2)
    [part] = response["output"][0]["content"]
    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])
    assert (await ask(stand))["output"][0]["content"][0]["logprobs"] == []


@pytest.fixture
async def slow_stand() -> AsyncIterator[Stand]:
    """A server that takes its time for every token."""
    async with open_stand("scripted:step_us=3000") as opened:
        yield opened


async def test_a_streamed_response_can_be_found_and_cancelled(
    slow_stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand, url = slow_stand, f"{RESPONSES}/resp_known"
    monkeypatch.setattr("cupola.protocol.responses_object.new_id", lambda prefix: f"{prefix}_known")
    body = PLAIN | {"stream": True, "max_output_tokens": 4000, "ignore_eos": True}
    task = asyncio.create_task(stand.client.post(RESPONSES, json=body))
    while (found := await stand.client.get(url)).status_code == 404:
        assert not task.done()
        await asyncio.sleep(0.001)
    assert (found.json()["id"], found.json()["status"]) == ("resp_known", "in_progress")
    cancelled = (await stand.client.post(f"{url}/cancel")).json()
    SdkResponse.model_validate(cancelled)
    assert (cancelled["id"], cancelled["status"]) == ("resp_known", "cancelled")
    events = [json.loads(line[6:]) for line in (await task).text.split("\n") if line.startswith("data: ")]
    assert (events[-1]["type"], events[-1]["response"]) == ("response.incomplete", cancelled)
    assert (await stand.client.get(url)).json() == cancelled
    assert (await stand.client.post(f"{url}/cancel")).json() == cancelled, "it is, already"
    await until(lambda: stand.engine.active == 0)


async def test_what_has_ended_cannot_be_cancelled(stand: Stand) -> None:
    response = await ask(stand)
    answer = await stand.client.post(f"{RESPONSES}/{response['id']}/cancel")
    refused(answer, 400, "response_ended", None)


async def test_a_response_that_runs_out_of_time_has_failed(slow_stand: Stand) -> None:
    answer = await slow_stand.client.post(
        RESPONSES, json=PLAIN | {"stream": True, "max_output_tokens": 4000, "ignore_eos": True, "timeout": 0.1}
    )
    *_, error, failed = (json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: "))
    assert (error["type"], error["code"], error["param"]) == ("error", "timeout", "timeout")
    assert (failed["type"], failed["response"]["error"]["code"]) == ("response.failed", "server_error")
    kept = await slow_stand.client.get(f"{RESPONSES}/{failed['response']['id']}")
    assert kept.json() == failed["response"]
    whole = PLAIN | {"max_output_tokens": 4000, "ignore_eos": True, "timeout": 0.1}
    refused(await slow_stand.client.post(RESPONSES, json=whole), 504, "timeout", "timeout")
