"""The official `openai` package speaks `/v1/responses`: it is understood, and what it gets is what its types say."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

import openai
import pytest
from openai.types.responses import Response, ResponseInputParam, ResponseStreamEvent, ToolParam
from pydantic import BaseModel, TypeAdapter

from serving import ServerProcess

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
ITEMS: ResponseInputParam = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": [{"type": "input_text", "text": "Name three colours."}]},
]
TOOL: ToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
GREEDY = {"model": "model", "temperature": 0}
SHORT = GREEDY | {"max_output_tokens": 16}


def valid(response: Response) -> Response:
    """The response, after a check that the client itself does not make: every field is as its type says."""
    Response.model_validate(response.to_dict(mode="json"))
    return response


def test_a_response(client: openai.OpenAI) -> None:
    response = valid(client.responses.create(**SHORT, input="Hello", instructions="Be brief."))
    assert response.output_text
    assert response.output[0].type == "message"
    assert response.status in ("completed", "incomplete")
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.instructions == "Be brief."


def test_items_and_a_string_are_the_same(client: openai.OpenAI) -> None:
    as_items = client.responses.create(**SHORT, input=[{"role": "user", "content": "Hello"}])
    typed = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]
    assert as_items.output_text == client.responses.create(**SHORT, input="Hello").output_text
    assert as_items.output_text == client.responses.create(**SHORT, input=typed).output_text
    assert client.responses.create(**SHORT, input=ITEMS).output_text


def test_a_stream(client: openai.OpenAI) -> None:
    whole = client.responses.create(**SHORT, input=ITEMS)
    events = list(client.responses.create(**SHORT, input=ITEMS, stream=True))
    for number, event in enumerate(events):
        EVENT.validate_python(event.to_dict(mode="json"))
        assert event.sequence_number == number
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[4:-4] == ["response.output_text.delta"] * len(deltas)
    ending = "response.completed" if whole.status == "completed" else "response.incomplete"
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        ending,
    ]
    assert "".join(deltas) == whole.output_text == events[-1].response.output_text


def test_the_stream_helper(client: openai.OpenAI) -> None:
    text = client.responses.create(**SHORT, input=ITEMS).output_text
    stop = text[len(text) // 2 :][:3]  # the helper wants a response that is complete
    told = ""
    with client.responses.stream(**SHORT, input=ITEMS, extra_body={"stop": stop}) as stream:
        for event in stream:
            told += event.delta if event.type == "response.output_text.delta" else ""
        final = stream.get_final_response()
    assert told == final.output_text == text[: text.index(stop)]
    assert final.status == "completed"


class Colour(BaseModel):
    """What the model shall say."""

    name: Literal["red", "green"]
    share: Literal[1, 2, 3]


def test_parse(client: openai.OpenAI) -> None:
    asked = GREEDY | {"input": "A colour, as JSON."}
    parsed = client.responses.parse(**asked, text_format=Colour)
    assert isinstance(parsed.output_parsed, Colour)
    with client.responses.stream(**asked, text_format=Colour) as stream:
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Colour)


def test_asyncio(async_client: openai.AsyncOpenAI) -> None:
    async def ask() -> tuple[str, str]:
        async with async_client as client:
            whole = valid(await client.responses.create(**SHORT, input="Hello"))
            stream = await client.responses.create(**SHORT, input="Hello", stream=True)
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            return whole.output_text, "".join(deltas)

    whole, streamed = asyncio.run(ask())
    assert whole == streamed


def test_a_conversation(client: openai.OpenAI) -> None:
    first = client.responses.create(**SHORT, input="Name a colour.")
    second = valid(client.responses.create(**SHORT, input="Another one.", previous_response_id=first.id))
    history: ResponseInputParam = [{"role": "user", "content": "Name a colour."}]
    history += first.output  # as the documentation of the package does it
    history.append({"role": "user", "content": "Another one."})
    by_hand = client.responses.create(**SHORT, input=history)
    assert by_hand.output_text == second.output_text
    assert second.usage is not None
    assert 0 < second.usage.input_tokens_details.cached_tokens < second.usage.input_tokens


def test_stored_responses(client: openai.OpenAI) -> None:
    response = client.responses.create(**SHORT, input=ITEMS, metadata={"topic": "colours"})
    assert client.responses.retrieve(response.id) == response
    items = list(client.responses.input_items.list(response.id, order="asc", limit=1))
    assert [(item.type, item.role) for item in items] == [("message", "system"), ("message", "user")]
    counted = client.responses.input_tokens.count(model="model", input=ITEMS)
    assert response.usage is not None
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", response.usage.input_tokens)
    with pytest.raises(openai.BadRequestError, match="ended"):
        client.responses.cancel(response.id)
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve(response.id)
    assert caught.value.code == "response_not_found"


def test_a_stream_is_cancelled_by_another_request(slow_server: ServerProcess) -> None:
    with openai.OpenAI(base_url=f"{slow_server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        events = client.responses.create(
            model="model", input="A long story.", max_output_tokens=3900, stream=True, extra_body={"ignore_eos": True}
        )
        first = next(events)
        assert first.type == "response.created"
        assert client.responses.retrieve(first.response.id).status == "in_progress"
        assert valid(client.responses.cancel(first.response.id)).status == "cancelled"
        *_, last = events
        assert last.type == "response.incomplete"
        assert (last.response.id, last.response.status) == (first.response.id, "cancelled")


def test_log_probabilities(client: openai.OpenAI) -> None:
    options = SHORT | {"input": ITEMS, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = valid(client.responses.create(**options))
    [part] = whole.output[0].content
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert "".join(entry.token for entry in part.logprobs) == part.text
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in part.logprobs)
    streamed = [
        entry.logprob
        for event in client.responses.create(**options, stream=True)
        if event.type == "response.output_text.delta"
        for entry in event.logprobs
    ]
    assert streamed == [entry.logprob for entry in part.logprobs]


def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI) -> None:
    for refused in ({"background": True}, {"conversation": "conv_1"}, {"tools": [{"type": "web_search"}]}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**SHORT, input="Hello", **refused)
        assert caught.value.code == "unsupported_parameter"
        assert (caught.value.param or "").split(".")[0] in refused
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nobody", input="Hello")
    with pytest.raises(openai.BadRequestError) as missing:
        client.responses.create(**SHORT, input="Hello", previous_response_id="resp_none")
    assert missing.value.code == "previous_response_not_found"


def test_extensions_through_extra_body(client: openai.OpenAI) -> None:
    extra = {"top_k": 1, "min_p": 0.0, "min_tokens": 4, "ignore_eos": True, "priority": 2, "timeout": 60, "seed": 3}
    response = client.responses.create(**SHORT, input="Hello", extra_body=extra)
    assert response.usage is not None
    assert response.usage.output_tokens == 16
    chosen = client.responses.create(
        **GREEDY, input="Yes or no?", extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )
    assert chosen.output_text in ("yes", "no")


class Weather(BaseModel):
    """The arguments of a function."""

    city: Literal["Oslo", "Rome"]


def test_a_round_trip_of_a_tool(client: openai.OpenAI) -> None:
    first = valid(client.responses.create(**GREEDY, input="The weather?", tools=[TOOL], tool_choice="required"))
    calls = [item for item in first.output if item.type == "function_call"]
    assert calls
    for call in calls:
        assert call.name == "get_weather"
        assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    history: ResponseInputParam = [{"role": "user", "content": "The weather?"}]
    history += first.output
    results: ResponseInputParam = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls
    ]
    by_hand = client.responses.create(**SHORT, input=history + results, tools=[TOOL], tool_choice="none")
    second = client.responses.create(
        **SHORT, input=results, tools=[TOOL], tool_choice="none", previous_response_id=first.id
    )
    assert valid(second).output_text == by_hand.output_text != ""


def test_a_call_is_streamed_and_parsed(client: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(Weather)["function"] | {"type": "function"}
    choice = {"type": "function", "name": "Weather"}
    options = GREEDY | {"input": "The weather?", "tools": [tool], "tool_choice": choice}
    parsed = client.responses.parse(**options, parallel_tool_calls=False)
    [call] = [item for item in parsed.output if item.type == "function_call"]
    assert call.parsed_arguments["city"] in ("Oslo", "Rome")
    arguments: dict[int, str] = {}
    with client.responses.stream(**options, parallel_tool_calls=False) as stream:
        for event in stream:
            if event.type == "response.function_call_arguments.delta":
                arguments[event.output_index] = arguments.get(event.output_index, "") + event.delta
                assert event.snapshot == arguments[event.output_index]
        final = stream.get_final_response()
    [streamed] = [item for item in final.output if item.type == "function_call"]
    assert arguments == {final.output.index(streamed): streamed.arguments}
    assert Weather.model_validate_json(streamed.arguments)


def test_no_tool_is_called_where_none_may_be(client: openai.OpenAI) -> None:
    response = client.responses.create(**SHORT, input="The weather?", tools=[TOOL], tool_choice="none")
    assert [item.type for item in response.output] == ["message"]
