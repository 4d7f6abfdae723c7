"""The official `anthropic` package as the judge: what it sends is understood, what it gets is what its types say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import anthropic
import pytest
from anthropic.types import Message, MessageParam, ToolParam
from pydantic import BaseModel

from serving import ServerProcess

USER: list[MessageParam] = [{"role": "user", "content": "Name three colours."}]
GREEDY = {"temperature": 0}  # the package has no such parameter any more
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def claude(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    """The official client."""
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


@pytest.fixture
async def async_claude(server: ServerProcess) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The official client for asyncio."""
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


def ask(client: anthropic.Anthropic, **options: object) -> Message:
    """One greedy answer."""
    options = {"model": "model", "max_tokens": 24, "messages": USER, "extra_body": GREEDY} | options
    return client.messages.create(**options)


def text_of(message: Message) -> str:
    """The text of the only block."""
    [block] = message.content
    assert block.type == "text"
    return block.text


def test_an_answer(claude: anthropic.Anthropic) -> None:
    message = ask(claude, system="You are helpful.")
    assert (message.type, message.role, message.model) == ("message", "assistant", "model")
    assert message.id.startswith("msg_")
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert text_of(message)
    assert 0 < message.usage.output_tokens <= 24
    counted = claude.messages.count_tokens(model="model", system="You are helpful.", messages=USER)
    cached = message.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == message.usage.input_tokens + cached
    again = ask(claude, system="You are helpful.")
    assert text_of(again) == text_of(message)
    assert (again.usage.cache_read_input_tokens or 0) > 0
    assert again._request_id is not None


def test_the_stream_helper(claude: anthropic.Anthropic) -> None:
    whole = ask(claude)
    with claude.messages.stream(model="model", max_tokens=24, messages=USER, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(whole) == text_of(final)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert final.model == "model"


def test_raw_events_come_in_order(claude: anthropic.Anthropic) -> None:
    stream = claude.messages.create(model="model", max_tokens=6, messages=USER, stream=True, extra_body=GREEDY)
    kinds = [event.type for event in stream if event.type != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_stop_sequences(claude: anthropic.Anthropic) -> None:
    text = text_of(ask(claude))
    stop = text[len(text) // 2 :][:3]
    message = ask(claude, stop_sequences=["never in there", stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert text_of(message) == text[: text.index(stop)]


def test_a_conversation_goes_on_with_the_answer(claude: anthropic.Anthropic) -> None:
    first = ask(claude)
    messages = [*USER, first.to_param(), {"role": "user", "content": [{"type": "text", "text": "And three animals."}]}]
    assert ask(claude, messages=messages).content
    assert claude.messages.count_tokens(model="model", messages=messages).input_tokens > first.usage.output_tokens


class Colour(BaseModel):
    """What the text has to be."""

    name: Literal["red", "green"]
    dark: bool


def test_structured_output(claude: anthropic.Anthropic) -> None:
    message = claude.messages.parse(
        model="model", max_tokens=60, messages=USER, output_format=Colour, extra_body=GREEDY
    )
    assert isinstance(message.parsed_output, Colour)
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_tool_is_called_answered_and_talked_about(claude: anthropic.Anthropic, choice: dict[str, str]) -> None:
    question: list[MessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]
    options = {"tools": [WEATHER], "messages": question, "tool_choice": choice | {"disable_parallel_tool_use": True}}
    message = ask(claude, max_tokens=200, **options)
    assert message.stop_reason == "tool_use"
    [call] = [block for block in message.content if block.type == "tool_use"]
    assert call.name == "get_weather"
    assert set(call.input) == {"city", "unit"}
    with claude.messages.stream(model="model", max_tokens=200, extra_body=GREEDY, **options) as stream:
        partial = "".join(event.partial_json for event in stream if event.type == "input_json")
        final = stream.get_final_message()
    [streamed] = [block for block in final.content if block.type == "tool_use"]
    assert json.loads(partial) == streamed.input == call.input
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Sunny, 21 C"}]}
    answered = [*question, message.to_param(), {"role": "user", "content": [result]}]
    assert ask(claude, tools=[WEATHER], tool_choice={"type": "none"}, messages=answered).stop_reason != "tool_use"
    failed = {"type": "tool_result", "tool_use_id": call.id, "content": "no such city", "is_error": True}
    assert ask(claude, tools=[WEATHER], messages=[*answered[:-1], {"role": "user", "content": [failed]}]).content


def test_harmless_parameters_are_taken(claude: anthropic.Anthropic) -> None:
    plain = text_of(ask(claude))
    block = {"type": "text", "text": "Name three colours.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    message = ask(
        claude,
        messages=[{"role": "user", "content": [block]}],
        metadata={"user_id": "me"},
        service_tier="auto",
        thinking={"type": "disabled"},
        tools=[],
        extra_headers={"anthropic-beta": "some-2026-01-01"},
    )
    assert text_of(message) == plain


def test_the_beta_client(claude: anthropic.Anthropic) -> None:
    message = claude.beta.messages.create(
        model="model", max_tokens=8, messages=USER, betas=["some-2026-01-01"], mcp_servers=[], extra_body=GREEDY
    )
    assert message.content[0].type == "text"


def test_models(claude: anthropic.Anthropic) -> None:
    found = claude.models.list()
    assert [model.id for model in found] == ["model", "alias"]
    model = claude.models.retrieve("alias")
    assert (model.type, model.display_name, model.lifecycle) == ("model", "alias", "active")
    assert model.created_at.year > 2020
    assert (model.max_input_tokens or 0) > 100


@pytest.mark.parametrize(
    ("options", "error", "kind", "code", "param"),
    [
        ({"model": "other"}, anthropic.NotFoundError, "not_found_error", "model_not_found", "model"),
        (
            {"extra_body": {"n": 2}},
            anthropic.BadRequestError,
            "invalid_request_error",
            "unsupported_parameter",
            "n",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "unsupported_parameter",
            "messages.0.content.0",
        ),
        (
            {"messages": [{"role": "user", "content": "x " * 20_000}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_their_class(
    claude: anthropic.Anthropic,
    options: dict[str, object],
    error: type[anthropic.APIStatusError],
    kind: str,
    code: str,
    param: str,
    stream: bool,
) -> None:
    with pytest.raises(error) as caught:
        ask(claude, **options | {"stream": stream})
    assert (caught.value.type, caught.value.error_code) == (kind, code)
    assert caught.value.body["error"]["details"]["param"] == param
    assert caught.value.request_id == caught.value.body["request_id"]


async def test_32_streams_answer_as_one_alone_does(async_claude: anthropic.AsyncAnthropic) -> None:
    async def stream(number: int) -> str:
        async with async_claude.messages.stream(
            model="model",
            max_tokens=12,
            messages=[{"role": "user", "content": f"Count from {number}."}],
            extra_body=GREEDY,
        ) as opened:
            return "".join([text async for text in opened.text_stream])

    together = await asyncio.gather(*(stream(number % 4) for number in range(32)))
    assert together == [await stream(number) for number in range(4)] * 8
    whole = await async_claude.messages.create(
        model="model",
        max_tokens=12,
        messages=[{"role": "user", "content": "Count from 0."}],
        extra_body=GREEDY,
    )
    assert text_of(whole) == together[0]
