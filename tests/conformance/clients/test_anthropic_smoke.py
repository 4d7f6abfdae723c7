"""The official `anthropic` package: a message, a stream with its events in order, a tool, tokens, an error."""

from __future__ import annotations

import anthropic
import pytest

GREEDY = {"temperature": 0}  # the package has no such parameter any more
USER = [{"role": "user", "content": "Name three colours."}]
TOOL = {
    "name": "paint",
    "description": "Paints a wall.",
    "input_schema": {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def client(url: str) -> anthropic.Anthropic:
    """The official client."""
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=60)


def test_a_message(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="model", max_tokens=20, messages=USER, extra_body=GREEDY)
    assert (message.type, message.role) == ("message", "assistant")
    assert message.content[0].type == "text"
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 0 < message.usage.output_tokens <= 20


def test_the_events_of_a_stream_come_in_their_order(client: anthropic.Anthropic) -> None:
    stream = client.messages.create(model="model", max_tokens=20, messages=USER, stream=True, extra_body=GREEDY)
    kinds = [event.type for event in stream if event.type != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_the_stream_helper(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="model", max_tokens=20, messages=USER, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text


def test_a_tool(client: anthropic.Anthropic) -> None:
    asked = {"model": "model", "tools": [TOOL], "extra_body": GREEDY}
    choice = {"type": "tool", "name": "paint", "disable_parallel_tool_use": True}
    message = client.messages.create(**asked, max_tokens=60, messages=USER, tool_choice=choice)
    [call] = [block for block in message.content if block.type == "tool_use"]
    assert message.stop_reason == "tool_use"
    assert call.input["colour"] in ("red", "blue")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Done."}
    turns = [*USER, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(**asked, max_tokens=20, messages=turns).content


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="model", messages=USER).input_tokens
    usage = client.messages.create(model="model", max_tokens=1, messages=USER).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_errors_have_their_class(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="other", max_tokens=1, messages=USER)
    assert caught.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="model", max_tokens=1, messages=[])
