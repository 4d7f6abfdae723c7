"""Between the items of `/v1/responses` and the messages of a conversation, both ways.

One message of an assistant is up to three kinds of items in a row: reasoning, the message, function calls. A message's
`name` has no place among items. Knows no server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from cupola.errors import RequestError
from cupola.protocol.conversation import Conversation, ImagePart, Message, Part, TextPart, ToolCall, ToolChoice
from cupola.protocol.responses import ContextFields
from cupola.protocol.responses_items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputImage,
    InputText,
    Item,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Refusal,
)


def conversation_of(request: ContextFields, items: Sequence[Item]) -> Conversation:
    """What the model shall go on with: the instructions, and then everything that was said.

    Args:
        items: those of the responses before this one, and then those of the request.

    Raises:
        RequestError: `tool_choice` allows tools that there are not.
    """
    instructions = (Message("system", (TextPart(request.instructions),)),) if request.instructions else ()
    choice = request.tool_choice
    tools = tuple(tool.tool for tool in request.tools or ())
    if choice is not None and choice.allowed is not None:
        missing = choice.allowed - {tool.name for tool in tools}
        if missing:
            raise RequestError(f"`tool_choice` allows `{min(missing)}`, which is not in `tools`", param="tool_choice")
        tools = tuple(tool for tool in tools if tool.name in choice.allowed)
    arguments = dict(request.chat_template_kwargs or {})
    if request.enable_thinking is not None:
        arguments["enable_thinking"] = request.enable_thinking
    return Conversation(
        messages=instructions + messages_of(items),
        tools=tools,
        tool_choice=ToolChoice() if choice is None else choice.choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        reasoning_effort=None if request.reasoning is None else request.reasoning.effort,
        thinking_budget=request.thinking_token_budget,
        template_arguments=arguments,
    )


# --- items to messages ----------------------------------------------------------------------------------------------


def messages_of(items: Sequence[Item]) -> tuple[Message, ...]:
    """The messages that these items are. A call that was cut off is none that could be answered: it is left out."""
    return tuple(_message([items[index] for index in turn]) for turn in _grouped(items))


def _grouped(items: Sequence[Item]) -> list[list[int]]:
    """The indices of the items of each message."""
    groups: list[list[int]] = []
    for index, item in enumerate(items):
        if isinstance(item, FunctionCallItem) and item.status == "incomplete":
            continue
        if groups and _continues([items[before] for before in groups[-1]], item):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _continues(group: Sequence[Item], item: Item) -> bool:
    """Whether an item belongs to the message of the items right before it."""
    if not _of_assistant(group[0]):
        return False
    if isinstance(item, FunctionCallItem):
        return True
    only_thoughts = all(isinstance(before, ReasoningItem) for before in group)
    return only_thoughts and _of_assistant(item)


def _of_assistant(item: Item) -> bool:
    if isinstance(item, MessageItem):
        return item.role == "assistant"
    return isinstance(item, FunctionCallItem | ReasoningItem)


def _message(group: Sequence[Item]) -> Message:
    first = group[0]
    if isinstance(first, FunctionCallOutputItem):
        return Message("tool", _tool_output(first), tool_call_id=first.call_id)
    if isinstance(first, MessageItem) and first.role != "assistant":
        return Message(first.role, _parts(first))
    thoughts = "".join(item.text for item in group if isinstance(item, ReasoningItem))
    return Message(
        "assistant",
        tuple(part for item in group if isinstance(item, MessageItem) for part in _parts(item)),
        tool_calls=tuple(
            ToolCall(item.call_id, item.name, item.arguments) for item in group if isinstance(item, FunctionCallItem)
        ),
        reasoning=thoughts or None,
    )


def _parts(item: MessageItem) -> tuple[Part, ...]:
    return tuple(_part(part) for part in item.content)


def _part(part: InputText | InputImage | OutputText | Refusal) -> Part:
    if isinstance(part, InputImage):
        return ImagePart(part.image_url, part.detail)
    return TextPart(part.refusal if isinstance(part, Refusal) else part.text)


def _tool_output(item: FunctionCallOutputItem) -> tuple[Part, ...]:
    if isinstance(item.output, str):
        return (TextPart(item.output),)
    return tuple(_part(part) for part in item.output)


# --- messages to items ----------------------------------------------------------------------------------------------


def items_of(messages: Sequence[Message]) -> tuple[Item, ...]:
    """The items that these messages are, without ids."""
    return tuple(item for message in messages for item in _items(message))


def _items(message: Message) -> list[Item]:
    if message.role == "tool":
        return [FunctionCallOutputItem(call_id=message.tool_call_id or "", output=_output(message.content))]
    if message.role != "assistant":
        return [MessageItem(role=message.role, content=tuple(_input_part(part) for part in message.content))]
    items: list[Item] = []
    if message.reasoning:
        items.append(ReasoningItem(content=(ReasoningText(text=message.reasoning),)))
    if message.content or not (message.reasoning or message.tool_calls):
        content = tuple(OutputText(text=part.text) for part in message.content if isinstance(part, TextPart))
        items.append(MessageItem(role="assistant", content=content))
    calls = message.tool_calls
    return items + [FunctionCallItem(call_id=call.id, name=call.name, arguments=call.arguments) for call in calls]


def _output(content: Sequence[Part]) -> str | tuple[InputText | InputImage, ...]:
    if len(content) == 1 and isinstance(content[0], TextPart):
        return content[0].text
    return tuple(_input_part(part) for part in content)


def _input_part(part: Part) -> InputText | InputImage:
    return (
        InputText(text=part.text) if isinstance(part, TextPart) else InputImage(image_url=part.url, detail=part.detail)
    )


# --- what does not fit ----------------------------------------------------------------------------------------------


def num_turns(conversation: Conversation) -> int:
    """How many turns `without_turns` can count: each begins with a message of the user."""
    return max(1, sum(message.role == "user" for message in conversation.messages))


def without_turns(conversation: Conversation, count: int) -> Conversation:
    """The conversation without its oldest turns; what the system or the developer said stays.

    Args:
        count: fewer than there are.
    """
    begun = 0
    kept: list[Message] = []
    for message in conversation.messages:
        begun += message.role == "user"
        if begun > count or count == 0 or message.role in ("system", "developer"):
            kept.append(message)
    return replace(conversation, messages=tuple(kept))


def in_words_of_items(error: RequestError, request: ContextFields, items: Sequence[Item], prior: int) -> RequestError:
    """An error about `conversation_of(request, items)`, with the names that this endpoint gives to the fields.

    Args:
        prior: how many of the items are of responses before.
    """
    found = re.match(r"messages(?:\.(\d+))?|tools\.(\d+)\.function", error.param or "")
    if found is None:
        return error
    name = _field(found, request, items, prior)
    rest = (error.param or "")[found.end() :] if name.startswith("tools") else ""
    message = error.message.replace(f"`{error.param}`", f"`{name}{rest}`")
    renamed = type(error)(message, param=name + rest, code=error.code, hint=error.hint)
    return renamed.with_traceback(error.__traceback__)


def _field(found: re.Match[str], request: ContextFields, items: Sequence[Item], prior: int) -> str:
    if found[2] is not None:
        return f"tools.{found[2]}"
    if found[1] is None:
        return "input"
    index = int(found[1]) - bool(request.instructions)
    groups = _grouped(items)
    if not 0 <= index < len(groups):
        return "instructions" if index < 0 else "input"
    first = groups[index][0] - prior
    return f"input.{first}" if first >= 0 else "previous_response_id"
