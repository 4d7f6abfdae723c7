"""Items and messages: whatever a conversation is, its items are read back as the same conversation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cupola.errors import RequestError
from cupola.protocol.conversation import Conversation, ImagePart, Message, TextPart, ToolCall, text_message
from cupola.protocol.responses import ResponseRequest
from cupola.protocol.responses_conversation import (
    conversation_of,
    in_words_of_items,
    items_of,
    messages_of,
    num_turns,
    without_turns,
)
from cupola.protocol.responses_items import InputItem, with_id

TEXT = st.text(max_size=12)
TEXTS = st.lists(TEXT.map(TextPart), min_size=1, max_size=3).map(tuple)
PARTS = st.lists(TEXT.map(TextPart) | st.builds(ImagePart, st.just("data:,x")), min_size=1, max_size=3).map(tuple)
IDS = st.text("abc123_", min_size=1, max_size=8)
CALLS = st.lists(st.builds(ToolCall, IDS, IDS, st.dictionaries(TEXT, st.integers()).map(json.dumps)), max_size=3).map(
    tuple
)

OF_OTHERS = st.one_of(
    st.builds(Message, st.sampled_from(["system", "developer", "user"]), PARTS),
    st.builds(lambda content, call: Message("tool", content, tool_call_id=call), PARTS, IDS),
)
OF_ASSISTANT = st.builds(
    lambda content, calls, thoughts: Message("assistant", content, tool_calls=calls, reasoning=thoughts),
    TEXTS | st.just(()),
    CALLS,
    st.none() | st.text(min_size=1, max_size=12),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Messages in which two of the assistant never follow each other: as items they could be one."""
    messages: list[Message] = []
    for _ in range(draw(st.integers(0, 6))):
        alone = not messages or messages[-1].role != "assistant"
        messages.append(draw(OF_OTHERS | OF_ASSISTANT if alone else OF_OTHERS))
    return tuple(messages)


@given(conversations())
def test_messages_survive_as_items(messages: tuple[Message, ...]) -> None:
    assert messages_of(items_of(messages)) == messages


@given(conversations())
def test_items_survive_the_wire(messages: tuple[Message, ...]) -> None:
    """With ids, as JSON, read as the input of another request."""
    adapter = TypeAdapter(tuple[InputItem, ...])
    items = tuple(with_id(item) for item in items_of(messages))
    assert len({item.id for item in items}) == len(items)
    read = adapter.validate_json(adapter.dump_json(items))
    assert read == items
    assert messages_of(read) == messages


@given(conversations(), st.integers(0, 3))
def test_turns_are_dropped_from_the_oldest_on(messages: tuple[Message, ...], count: int) -> None:
    conversation = Conversation(messages)
    kept = without_turns(conversation, min(count, num_turns(conversation) - 1)).messages
    assert [m for m in kept if m.role in ("system", "developer")] == [
        m for m in messages if m.role in ("system", "developer")
    ]
    spoken = [m for m in messages if m.role not in ("system", "developer")]
    assert [m for m in kept if m.role not in ("system", "developer")] == spoken[len(spoken) - _spoken(kept) :]
    if any(m.role == "user" for m in messages):
        assert kept[-1:] == messages[-1:] or messages[-1].role in ("system", "developer")
        assert sum(m.role == "user" for m in kept) == num_turns(conversation) - min(count, num_turns(conversation) - 1)


def _spoken(messages: tuple[Message, ...]) -> int:
    return sum(message.role not in ("system", "developer") for message in messages)


def request(**fields: object) -> ResponseRequest:
    """A request of these fields."""
    return ResponseRequest.model_validate({"model": "m", "input": "x"} | fields)


def read(items: list[dict[str, object]]) -> tuple[Message, ...]:
    """The messages of an input."""
    found = request(input=items).input
    return messages_of([with_id(item) for item in found])


CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}


def test_what_the_assistant_says_in_a_row_is_one_message() -> None:
    thought = {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    spoken = {"role": "assistant", "content": "Let me see."}
    result = {"type": "function_call_output", "call_id": "c1", "output": "3"}
    assert read([{"role": "user", "content": "1+2?"}, thought, spoken, CALL, CALL | {"call_id": "c2"}, result]) == (
        text_message("user", "1+2?"),
        Message(
            "assistant",
            (TextPart("Let me see."),),
            tool_calls=(ToolCall("c1", "add", "{}"), ToolCall("c2", "add", "{}")),
            reasoning="hm",
        ),
        Message("tool", (TextPart("3"),), tool_call_id="c1"),
    )
    assert len(read([spoken, spoken])) == 2, "two messages are two"
    assert len(read([CALL, spoken])) == 2, "what is said after a call is another message"
    assert len(read([spoken, thought])) == 2, "who thinks anew begins anew"


def test_a_summary_stands_in_for_the_thoughts() -> None:
    summary = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "short"}]}
    assert read([summary, {"role": "assistant", "content": "x"}])[0].reasoning == "short"


def test_a_call_that_was_cut_off_is_left_out() -> None:
    assert read([USER, CALL | {"status": "incomplete", "arguments": '{"a'}]) == (text_message("user", "x"),)


def test_instructions_come_first_and_tools_with_them() -> None:
    tools = [{"type": "function", "name": name, "parameters": {}, "strict": name == "a"} for name in ("a", "b")]
    found = conversation_of(
        request(instructions="Be brief.", tools=tools, tool_choice="required", reasoning={"effort": "low"}), ()
    )
    assert found.messages == (text_message("system", "Be brief."),)
    assert [(tool.name, tool.strict) for tool in found.tools] == [("a", True), ("b", False)]
    assert (found.tool_choice.mode, found.reasoning_effort, found.parallel_tool_calls) == ("required", "low", True)


def test_allowed_tools_are_the_only_ones() -> None:
    tools = [{"type": "function", "name": name, "parameters": None} for name in ("a", "b")]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    found = conversation_of(request(tools=tools, tool_choice=allowed), ())
    assert [tool.name for tool in found.tools] == ["b"]
    assert found.tool_choice.mode == "required"
    with pytest.raises(RequestError, match="`b`"):
        conversation_of(request(tools=tools[:1], tool_choice=allowed), ())


USER = {"role": "user", "content": "x"}
RESULT = {"type": "function_call_output", "call_id": "q", "output": ""}
BAD_TOOL = {"type": "function", "name": "a b", "parameters": {}}


@pytest.mark.parametrize(
    ("items", "prior", "fields", "param"),
    [
        (
            [{"role": "user", "content": "x"}, RESULT],
            0,
            {},
            "input.1",
        ),
        ([RESULT], 0, {"instructions": "i"}, "input.0"),
        (
            [{"role": "user", "content": "x"}, CALL, RESULT],
            1,
            {},
            "input.1",
        ),
        ([CALL | {"arguments": "no"}], 0, {}, "input.0"),
        ([CALL | {"arguments": "no"}], 1, {}, "previous_response_id"),
        ([{"role": "user", "content": []}], 0, {}, "input.0"),
        (
            [],
            0,
            {"tools": [BAD_TOOL], "instructions": "i"},
            "tools.0.name",
        ),
        ([USER], 0, {"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_errors_name_the_fields_of_this_endpoint(
    items: list[dict[str, object]], prior: int, fields: dict[str, object], param: str
) -> None:
    body = request(**fields)
    found = [with_id(item) for item in request(input=items or "x").input]
    with pytest.raises(RequestError) as caught:
        conversation_of(body, found).validate()
    error = in_words_of_items(caught.value, body, found, prior)
    assert error.param == param
    assert f"`{param}`" in error.message
    assert "messages" not in error.message
