"""Between the shapes of `/v1/messages` and a conversation: what goes there and back is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cupola.protocol.anthropic import MessagesContext, MessagesRequest
from cupola.protocol.anthropic_conversation import blocks_of, context_of, conversation_of
from cupola.protocol.conversation import Conversation, ImagePart, Message, TextPart, Tool, ToolCall, ToolChoice
from cupola.protocol.errors import validation_error

TEXT = st.text(min_size=1, max_size=12)
NAME = st.text("abcXYZ019_-", min_size=1, max_size=12)
TEXT_PART = st.builds(TextPart, TEXT)
IMAGE_PART = st.builds(ImagePart, st.sampled_from(["https://x/y.png", "data:image/png;base64,AAAA"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
CALL = st.builds(lambda i, name, value: ToolCall(i, name, json.dumps(value, ensure_ascii=False)), NAME, NAME, OBJECT)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Valid ones, of those that Anthropic's shape has a place for."""
    messages = [Message("system", (draw(TEXT_PART),))] if draw(st.booleans()) else []
    serial = 0
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", tuple(draw(st.lists(TEXT_PART | IMAGE_PART, min_size=1, max_size=2)))))
        calls = draw(st.lists(CALL, max_size=2))
        calls = [ToolCall(f"call_{serial + i}", call.name, call.arguments) for i, call in enumerate(calls)]
        serial += len(calls)
        content = tuple(draw(st.lists(TEXT_PART, min_size=0 if calls else 1, max_size=2)))
        messages.append(Message("assistant", content, tool_calls=tuple(calls), reasoning=draw(st.none() | TEXT)))
        messages += [Message("tool", (draw(TEXT_PART),), tool_call_id=call.id) for call in calls]
    messages.append(Message("user", (draw(TEXT_PART),)))
    tools = tuple(
        Tool(name, draw(st.none() | TEXT), {"type": "object", "properties": draw(OBJECT)}, draw(st.booleans()))
        for name in sorted(draw(st.sets(NAME, max_size=3)))
    )
    thinking, budget = draw(
        st.sampled_from([({}, None), ({"enable_thinking": True}, None), ({"enable_thinking": False}, None)])
        | st.tuples(st.just({"enable_thinking": True}), st.integers(1, 2**31 - 1))
    )
    modes = ["auto", "none", "required", "named"] if tools else ["auto"]
    mode = draw(st.sampled_from(modes))
    return Conversation(
        tuple(messages),
        tools,
        ToolChoice(mode, tools[0].name if mode == "named" else None),
        draw(st.booleans()) if tools else True,
        draw(st.sampled_from([None, "low", "medium", "high"])),
        budget,
        thinking,
    )


@given(conversations())
def test_a_conversation_goes_there_and_back(conversation: Conversation) -> None:
    fields = json.dumps({"model": "m", **context_of(conversation)})
    found, places = conversation_of(MessagesContext.model_validate_json(fields))
    assert found == conversation
    assert len(places) == len(found.messages)


@given(conversations(), st.booleans())
def test_an_answer_goes_there_and_back(conversation: Conversation, shown: bool) -> None:
    for message in conversation.messages:
        if message.role == "assistant":
            blocks = [block.model_dump() for block in blocks_of(message, shown=shown)]
            [again] = read([{"role": "assistant", "content": blocks}]).messages
            assert again == message
            assert shown or all(block["thinking"] == "" for block in blocks if block["type"] == "thinking")


def read(messages: list[object], **fields: object) -> Conversation:
    """The conversation that these messages are."""
    body = json.dumps({"model": "m", "messages": messages, **fields})
    return conversation_of(MessagesContext.model_validate_json(body))[0]


def test_turns_of_one_role_are_one_turn() -> None:
    user = [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}]
    assert [message.text for message in read(user).messages] == ["a\n\nb"]
    thought = {"type": "thinking", "thinking": "t", "signature": "s"}
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
    assistant = [{"role": "assistant", "content": [thought, call]}, {"role": "assistant", "content": "c"}]
    [message] = read(assistant).messages
    assert (message.text, message.reasoning, len(message.tool_calls)) == ("c", "t", 1)
    several = [{"role": "system", "content": "s"}, {"role": "system", "content": "t"}]
    assert len(read(several).messages) == 2


def test_answers_to_calls_are_messages_of_their_own() -> None:
    content = [
        {"type": "tool_result", "tool_use_id": "1", "content": "fine", "cache_control": {"type": "ephemeral"}},
        {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "no"}], "is_error": True},
        {"type": "tool_result", "tool_use_id": "3"},
        {"type": "text", "text": "and now?"},
    ]
    found = read([{"role": "user", "content": content}]).messages
    assert [(message.role, message.tool_call_id, message.text) for message in found] == [
        ("tool", "1", "fine"),
        ("tool", "2", "Error: no"),
        ("tool", "3", ""),
        ("user", None, "and now?"),
    ]


def test_thoughts_of_others_are_taken_as_they_are() -> None:
    blocks = [
        {"type": "redacted_thinking", "data": "abc"},
        {"type": "thinking", "thinking": "shown", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"},
        {"type": "thinking", "thinking": "", "signature": "hidden.not base64"},
        {"type": "text", "text": "x", "citations": None},
    ]
    [message] = read([{"role": "assistant", "content": blocks}]).messages
    assert (message.reasoning, message.text) == ("shown", "x")


def test_arguments_that_were_cut_short_are_told_as_far_as_they_go() -> None:
    calls = tuple(ToolCall("1", "f", text) for text in ('{"a": 1, "b": [2', "", "no json", "[1]"))
    assert [block.input for block in blocks_of(Message("assistant", tool_calls=calls))] == [
        {"a": 1, "b": [2]},
        {},
        {},
        {},
    ]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"max_tokens": None}, "max_tokens", ""),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0", "`document`"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking"}]}]}, "messages.0.content.0.thinking", "requ"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "1"}]}]},
            "messages.0",
            "`tool_result`",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0", "`web_search_20250305`"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema", "required"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice", "`name`"),
        ({"tool_choice": {"type": "any", "name": "f"}}, "tool_choice", "`name`"),
        ({"thinking": {"type": "between_tools"}}, "thinking", "`between_tools`"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking.budget_tokens", "max_tokens"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "required"),
        ({"container": "c"}, "container", "not supported"),
        ({"context_management": {"edits": [{"type": "x"}]}}, "context_management", "not supported"),
        ({"mcp_servers": [{}]}, "mcp_servers", "not supported"),
        ({"output_config": {"format": {"type": "json"}}}, "output_config.format.type", "json_schema"),
        ({"n": 2}, "n", "not supported"),
        ({"stop_sequences": [""]}, "stop_sequences.0", "at least 1"),
    ],
)
def test_what_cannot_be_is_named(fields: dict[str, object], param: str, said: str) -> None:
    body = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]} | fields
    with pytest.raises(ValidationError) as caught:
        MessagesRequest.model_validate_json(
            json.dumps({name: value for name, value in body.items() if value is not None})
        )
    error = validation_error(caught.value)
    assert error.param == param
    assert said in error.message


def test_harmless_fields_change_nothing() -> None:
    body = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
    plain = MessagesRequest.model_validate(body)
    harmless = {
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "speed": "fast",
        "inference_geo": "eu",
        "diagnostics": {"previous_message_id": None},
        "user_profile_id": "p",
        "workspace_id": "w",
        "container": None,
        "mcp_servers": [],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }
    assert MessagesRequest.model_validate(body | harmless) == plain


PAGE = (Path(__file__).parents[2] / "docs" / "messages.md").read_text()
FIELDS = sorted(MessagesRequest.model_fields.keys() | MessagesRequest.IGNORED | MessagesRequest.NEUTRAL.keys())


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE
