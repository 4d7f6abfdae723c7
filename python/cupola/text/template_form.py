"""What a chat template understands, found by asking it: small conversations are rendered, and looked at.

Templates say nowhere what they take, and the ways in which they are written are too many to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cupola.errors import RequestError
from cupola.text.chat_template import ChatTemplate, Message

_MARK = "Wz7qK"
_ID = "a1b2c3d4e"  # nine letters and digits: Mistral's templates take no others
_LONG_ID = "call_a1b2c3d4e5f6"
_USER: Message = {"role": "user", "content": "Hi"}
_TOOL = {
    "type": "function",
    "function": {"name": _MARK, "description": "d", "parameters": {"type": "object", "properties": {}}},
}


@dataclass(frozen=True, slots=True)
class TemplateForm:
    """What a template takes.

    Args:
        parts: content as a list of parts, and not as a string.
        developer: the role `developer`.
        tools: the variable `tools`, and calls and results in messages.
        text_arguments: arguments of calls as JSON text, and not as objects.
        short_ids: only ids of calls that are nine letters and digits.
    """

    parts: bool = False
    developer: bool = False
    tools: bool = False
    text_arguments: bool = False
    short_ids: bool = False


def probe(template: ChatTemplate) -> TemplateForm:
    """Finds out. Takes a few milliseconds."""
    in_text = _shows(template, [{"role": "user", "content": _MARK}])
    in_parts = _shows(template, [{"role": "user", "content": [{"type": "text", "text": _MARK}]}])
    parts = in_parts and not in_text
    tools = _shows(template, [_with_parts(_USER, parts)], [_TOOL]) and "tools" in template.sources
    as_objects = _shows_call(template, parts, {"k": _MARK}, _ID)
    as_text = not as_objects and _shows_call(template, parts, f'{{"k": "{_MARK}"}}', _ID)
    arguments: object = f'{{"k": "{_MARK}"}}' if as_text else {"k": _MARK}
    return TemplateForm(
        parts=parts,
        developer="developer" in template.sources,
        tools=tools and (as_objects or as_text),
        text_arguments=as_text,
        short_ids=(as_objects or as_text) and not _shows_call(template, parts, arguments, _LONG_ID),
    )


def _shows(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None = None
) -> bool:
    try:
        return _MARK in template.render(messages, tools=tools)
    except RequestError:
        return False


def _shows_call(template: ChatTemplate, parts: bool, arguments: object, call_id: str) -> bool:
    """Whether the arguments of a call stand in the text as JSON, and not as Python would print them."""
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages: list[Message] = [
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": call_id, "name": "f"},
    ]
    try:
        text = template.render([_with_parts(message, parts) for message in messages], tools=[_TOOL])
    except RequestError:
        return False
    before, _, after = text.rpartition(f"{_MARK}")
    return _MARK in text and not before.endswith("{'k': '") and not after.startswith("'}")


def _with_parts(message: Message, parts: bool) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]} if parts else message
