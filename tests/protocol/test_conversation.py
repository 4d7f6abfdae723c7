"""The shared conversation: its JSON, its rules, and what chat templates get of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola.errors import RequestError
from cupola.protocol.conversation import (
    Conversation,
    ImagePart,
    Message,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    text_message,
)
from cupola.protocol.conversation_forms import tools_as_text, weaker_forms

CALL = ToolCall("call_1", "get_weather", '{"city":  "Paris"}')
WEATHER = Tool("get_weather", "Weather.", {"type": "object", "properties": {"city": {"type": "string"}}}, True)
TALK = Conversation(
    (
        text_message("developer", "Be brief."),
        text_message("user", "Weather?"),
        Message("assistant", tool_calls=(CALL,), reasoning="Ask."),
        Message("tool", (TextPart("Sunny"),), tool_call_id="call_1"),
    ),
    (WEATHER,),
)

parts = st.one_of(st.builds(TextPart, st.text(max_size=5)), st.builds(ImagePart, st.text(max_size=5)))
calls = st.builds(ToolCall, st.text(max_size=4), st.text(max_size=4), st.text(max_size=8))
messages = st.builds(
    Message,
    st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    st.lists(parts, max_size=2).map(tuple),
    st.none() | st.text(max_size=3),
    st.lists(calls, max_size=2).map(tuple),
    st.none() | st.text(max_size=3),
    st.none() | st.text(max_size=3),
)
schemas = st.dictionaries(
    st.text(max_size=3), st.none() | st.integers(-9, 9) | st.lists(st.text(max_size=2)), max_size=2
)
conversations = st.builds(
    Conversation,
    st.lists(messages, max_size=3).map(tuple),
    st.lists(
        st.builds(Tool, st.text(max_size=3), st.none() | st.text(max_size=3), schemas, st.booleans()), max_size=2
    ).map(tuple),
    st.builds(ToolChoice, st.sampled_from(["none", "auto", "required", "named"]), st.none() | st.text(max_size=3)),
    st.booleans(),
    st.none() | st.just("low"),
    st.none() | st.integers(0, 9),
    schemas,
)


@given(conversations)
def test_json_brings_everything_back(conversation: Conversation) -> None:
    assert Conversation.from_json(conversation.to_json()) == conversation


@pytest.mark.parametrize("text", ["", "[]", '{"messages": [{"role": "robot"}]}', '{"messages": [{"content": []}]}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="not a conversation"):
        Conversation.from_json(text)


def test_a_conversation_with_tools_is_valid() -> None:
    TALK.validate()


@pytest.mark.parametrize(
    ("conversation", "param"),
    [
        (Conversation(()), "messages"),
        (Conversation((Message("user"),)), "messages.0"),
        (Conversation((Message("user", (ImagePart("x"),)),)), "messages.0.content.0"),
        (Conversation((text_message("user", "x"),), tuple(Tool(f"t{i}") for i in range(129))), "tools"),
        (Conversation((Message("assistant", tool_calls=(CALL, CALL)),)), "messages.0.tool_calls"),
        (Conversation(TALK.messages[3:]), "messages.0.tool_call_id"),
    ],
)
def test_what_does_not_fit_together_is_named(conversation: Conversation, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        conversation.validate()
    assert caught.value.param == param


def test_templates_get_what_hugging_face_gives_them() -> None:
    system, user, assistant, tool = TALK.template_messages()
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": "Weather?"}
    assert assistant == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Ask.",
        "tool_calls": [
            {"type": "function", "id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
        ],
    }
    assert tool == {"role": "tool", "content": "Sunny", "name": "get_weather", "tool_call_id": "call_1"}


def test_templates_get_it_in_the_form_that_they_take() -> None:
    system, _, assistant, tool = TALK.template_messages(parts=True, developer=True, text_arguments=True)
    assert system == {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    assert assistant["tool_calls"][0]["function"]["arguments"] == CALL.arguments
    assert tool["content"] == [{"type": "text", "text": "Sunny"}]


def test_tools_become_text_for_templates_that_know_none() -> None:
    system, user, assistant, result = tools_as_text(TALK).messages
    assert system.role == "system"
    assert system.text.startswith("Be brief.\n\n")
    assert json.dumps(WEATHER.template_form["function"]) in system.text
    assert user == TALK.messages[1]
    assert assistant.text == '<tool_call>\n{"name": "get_weather", "arguments": {"city":  "Paris"}}\n</tool_call>'
    assert result == text_message("user", "<tool_response>\nSunny\n</tool_response>")


def test_weaker_forms_say_the_same() -> None:
    talk = Conversation(
        (
            text_message("system", "A"),
            text_message("user", "b"),
            text_message("developer", "C"),
            text_message("user", "d"),
        )
    )
    forms = [[(message.role, message.text) for message in form.messages] for form in weaker_forms(talk)]
    assert forms[1] == [("system", "A\n\nC"), ("user", "b"), ("user", "d")]
    assert forms[2] == [("user", "A\n\nC\n\nb"), ("user", "d")]
    assert forms[3] == [("user", "A\n\nC\n\nb\n\nd")]
