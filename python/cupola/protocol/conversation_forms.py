"""Other forms of a conversation, for chat templates that take less than all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from cupola.protocol.conversation import Conversation, Message, TextPart, Tool, text_message

_SYSTEM = ("system", "developer")


def tools_as_text(conversation: Conversation) -> Conversation:
    """For a template that knows no tools: they stand in the system message, calls and results in plain messages.

    The form is that of Hermes 2, which many small models have seen.
    """
    messages = list(_calls_as_text(conversation))
    if conversation.tools:
        first = messages[0] if messages[0].role in _SYSTEM else None
        text = _instructions(conversation)
        system = text if first is None else f"{first.text}\n\n{text}"
        messages[: 0 if first is None else 1] = [text_message("system", system)]
    return replace(conversation, messages=tuple(messages), tools=())


def weaker_forms(conversation: Conversation) -> Iterator[Conversation]:
    """The conversation as it is; then with one system message at most, and at the start; then without any, its text
    before the first message of the user; then with users and assistants in turn."""
    yield conversation
    systems = [message.text for message in conversation.messages if message.role in _SYSTEM]
    others = tuple(message for message in conversation.messages if message.role not in _SYSTEM)
    if systems:
        system = "\n\n".join(systems)
        yield replace(conversation, messages=(text_message("system", system), *others))
        others = _with_text_before(system, others)
        yield replace(conversation, messages=others)
    joined = _joined(others)
    if joined != others:
        yield replace(conversation, messages=joined)


def _with_text_before(text: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    for index, message in enumerate(messages):
        if message.role == "user":
            changed = replace(message, content=(TextPart(f"{text}\n\n"), *message.content))
            return (*messages[:index], changed, *messages[index + 1 :])
    return (text_message("user", text), *messages)


def _joined(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Neighbours of the same role as one message."""
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        if last is None or last.role != message.role or message.role == "tool" or last.tool_calls:
            found.append(message)
            continue
        content = (*last.content, TextPart("\n\n"), *message.content)
        found[-1] = replace(last, content=content, tool_calls=message.tool_calls)
    return tuple(found)


def _calls_as_text(conversation: Conversation) -> Iterator[Message]:
    results: list[str] = []
    for message in conversation.messages:
        if message.role == "tool":
            results.append(f"<tool_response>\n{message.text}\n</tool_response>")
            continue
        if results:
            yield text_message("user", "\n".join(results))
            results = []
        if not message.tool_calls:
            yield message
            continue
        written = [
            f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}\n</tool_call>'
            for call in message.tool_calls
        ]
        text = "\n".join([*([message.text] if message.text else []), *written])
        yield replace(message, content=(TextPart(text),), tool_calls=())
    if results:
        yield text_message("user", "\n".join(results))


def _instructions(conversation: Conversation) -> str:
    signatures = "\n".join(json.dumps(_signature(tool), ensure_ascii=False) for tool in conversation.tools)
    several = "one or more" if conversation.parallel_tool_calls else "one"
    return (
        f"You may call {several} of these functions to help the user:\n<tools>\n{signatures}\n</tools>\n\n"
        "For each call, write a JSON object with the function's name and arguments between tags:\n"
        '<tool_call>\n{"name": "function-name", "arguments": {"argument-name": "value"}}\n</tool_call>'
    )


def _signature(tool: Tool) -> object:
    return tool.template_form["function"]
