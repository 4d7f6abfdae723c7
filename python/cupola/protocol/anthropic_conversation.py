"""Between the shapes of `/v1/messages` and a conversation, both ways.

Turns of one role in a row are one turn, with an empty line between their texts, as Anthropic defines it. A user's turn
that answers calls becomes a message for each answer and one for the rest. Knows no server.

The signature of a thinking block holds what its reader does not get: nothing where the thoughts are shown, the thoughts
themselves where they are omitted. A client that sends the block back gives them back to the model in either case.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from pydantic import JsonValue
from pydantic_core import from_json

from cupola.protocol.anthropic import (
    AnswerBlock,
    Block,
    ImageBlock,
    InputMessage,
    MessagesContext,
    TextBlock,
    ThinkingBlock,
    ThinkingDisabled,
    ThinkingEnabled,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from cupola.protocol.conversation import (
    Conversation,
    ImagePart,
    Message,
    Part,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)

_BETWEEN_TURNS = TextPart("\n\n")
_HIDDEN = "hidden."
_SHOWN = "shown."
_MODES: Mapping[str, ToolChoiceMode] = {"auto": "auto", "any": "required", "tool": "named", "none": "none"}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")

# --- from a request -------------------------------------------------------------------------------------------------


def conversation_of(request: MessagesContext) -> tuple[Conversation, tuple[str, ...]]:
    """What the model shall go on with; and for each of its messages the field of the request that it came from."""
    found = [(Message("system", _parts(request.system)), "system")] if request.system else []
    for index, message in enumerate(request.messages):
        for turn in _turns(message):
            _append(found, turn, f"messages.{index}")
    arguments = dict(request.chat_template_kwargs or {})
    if request.thinking is not None:
        arguments["enable_thinking"] = not isinstance(request.thinking, ThinkingDisabled)
    choice = request.tool_choice
    conversation = Conversation(
        messages=tuple(message for message, _ in found),
        tools=tuple(
            Tool(tool.name, tool.description, tool.input_schema, bool(tool.strict)) for tool in request.tools or ()
        ),
        tool_choice=ToolChoice() if choice is None else ToolChoice(_MODES[choice.type], choice.name),
        parallel_tool_calls=choice is None or not choice.disable_parallel_tool_use,
        reasoning_effort=None if request.output_config is None else request.output_config.effort,
        thinking_budget=request.thinking.budget_tokens if isinstance(request.thinking, ThinkingEnabled) else None,
        template_arguments=arguments,
    )
    return conversation, tuple(field for _, field in found)


def _append(found: list[tuple[Message, str]], turn: Message, field: str) -> None:
    last = found[-1][0] if found else None
    if last is None or last.role != turn.role or turn.role not in ("user", "assistant"):
        found.append((turn, field))
        return
    between = (_BETWEEN_TURNS,) if last.content and turn.content else ()
    thoughts = [reasoning for reasoning in (last.reasoning, turn.reasoning) if reasoning is not None]
    merged = replace(
        last,
        content=last.content + between + turn.content,
        tool_calls=last.tool_calls + turn.tool_calls,
        reasoning=_BETWEEN_TURNS.text.join(thoughts) if thoughts else None,
    )
    found[-1] = (merged, field)


def _turns(message: InputMessage) -> list[Message]:
    if message.role == "assistant":
        return [_assistant(message.content)]
    if message.role == "system":
        return [Message("system", _parts(message.content))]
    turns = []
    for answers, blocks in groupby(message.content, key=lambda block: isinstance(block, ToolResultBlock)):
        if answers:
            turns += [_answer(block) for block in blocks if isinstance(block, ToolResultBlock)]
        else:
            turns.append(Message("user", _parts(tuple(blocks))))
    return turns or [Message("user")]


def _assistant(blocks: Sequence[Block]) -> Message:
    thoughts = [_thoughts(block) for block in blocks if isinstance(block, ThinkingBlock)]
    return Message(
        role="assistant",
        content=_parts(blocks),
        tool_calls=tuple(
            ToolCall(block.id, block.name, json.dumps(block.input, ensure_ascii=False))
            for block in blocks
            if isinstance(block, ToolUseBlock)
        ),
        reasoning="".join(thoughts) if thoughts else None,
    )


def _answer(block: ToolResultBlock) -> Message:
    """A failed call is told so in words: the other APIs, and chat templates, have no other place for it."""
    content = _parts(block.content or ())
    if block.is_error:
        content = (TextPart("Error: "), *content)
    return Message("tool", content or (TextPart(""),), tool_call_id=block.tool_use_id)


def _parts(blocks: Sequence[Block] | None) -> tuple[Part, ...]:
    parts: list[Part] = []
    for block in blocks or ():
        if isinstance(block, TextBlock):
            parts.append(TextPart(block.text))
        elif isinstance(block, ImageBlock):
            source = block.source
            url = source.url if isinstance(source, UrlSource) else f"data:{source.media_type};base64,{source.data}"
            parts.append(ImagePart(url))
    return tuple(parts)


def _thoughts(block: ThinkingBlock) -> str:
    if block.thinking or not block.signature.startswith(_HIDDEN):
        return block.thinking
    try:
        return base64.b64decode(block.signature.removeprefix(_HIDDEN), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


# --- to an answer ---------------------------------------------------------------------------------------------------


def blocks_of(message: Message, *, shown: bool = True) -> tuple[AnswerBlock, ...]:
    """An assistant's message as content blocks: thoughts, text, calls. `shown`: the client may read the thoughts.

    The arguments of a call that was cut short are told as far as they are JSON.
    """
    blocks: list[AnswerBlock] = []
    if message.reasoning is not None:
        thinking = message.reasoning if shown else ""
        blocks.append(ThinkingBlock(thinking=thinking, signature=signature(message.reasoning, shown=shown)))
    blocks += [TextBlock(text=part.text) for part in message.content if isinstance(part, TextPart) and part.text]
    blocks += [
        ToolUseBlock(id=call.id, name=call.name, input=_arguments(call.arguments)) for call in message.tool_calls
    ]
    return tuple(blocks)


def signature(thoughts: str, *, shown: bool) -> str:
    """What goes with a thinking block, so that its thoughts find their way back."""
    if shown:
        return _SHOWN + hashlib.sha256(thoughts.encode("utf-8", "replace")).hexdigest()[:32]
    return _HIDDEN + base64.b64encode(thoughts.encode("utf-8", "replace")).decode()


def _arguments(text: str) -> dict[str, JsonValue]:
    try:
        found = from_json(text or "{}", allow_partial=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# --- to a request ---------------------------------------------------------------------------------------------------


def context_of(conversation: Conversation) -> dict[str, JsonValue]:
    """The fields of a request that say the same; `conversation_of` reads them back.

    What Anthropic's shape has no place for is left out: names of speakers, other template arguments.
    """
    messages = list(conversation.messages)
    fields: dict[str, JsonValue] = {}
    if messages and messages[0].role in ("system", "developer"):
        fields["system"] = _text_blocks(messages.pop(0))
    fields["messages"] = [
        {"role": role, "content": [block for message in group for block in _request_blocks(message)]}
        for role, group in groupby(messages, key=_wire_role)
    ]
    if conversation.tools:
        fields["tools"] = [_custom_tool(tool) for tool in conversation.tools]
        fields["tool_choice"] = _choice(conversation)
    if conversation.reasoning_effort in _EFFORTS:
        fields["output_config"] = {"effort": conversation.reasoning_effort}
    if conversation.thinking_budget:
        fields["thinking"] = {"type": "enabled", "budget_tokens": conversation.thinking_budget}
    elif "enable_thinking" in conversation.template_arguments:
        enabled = conversation.template_arguments["enable_thinking"]
        fields["thinking"] = {"type": "adaptive" if enabled else "disabled"}
    return fields


def _wire_role(message: Message) -> str:
    return {"tool": "user", "developer": "system"}.get(message.role, message.role)


def _request_blocks(message: Message) -> list[JsonValue]:
    if message.role == "tool":
        answer = ToolResultBlock(tool_use_id=message.tool_call_id or "", content=None)
        return [{"type": answer.type, "tool_use_id": answer.tool_use_id, "content": _text_blocks(message)}]
    if message.role == "assistant":
        return [block.model_dump() for block in blocks_of(message)]
    return _text_blocks(message)


def _text_blocks(message: Message) -> list[JsonValue]:
    return [_block(part) for part in message.content]


def _block(part: Part) -> JsonValue:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image", "source": {"type": "url", "url": part.url}}


def _custom_tool(tool: Tool) -> JsonValue:
    fields: dict[str, JsonValue] = {"name": tool.name, "input_schema": tool.parameters, "strict": tool.strict}
    return fields if tool.description is None else {**fields, "description": tool.description}


def _choice(conversation: Conversation) -> JsonValue:
    choice = conversation.tool_choice
    word = next(word for word, mode in _MODES.items() if mode == choice.mode)
    fields: dict[str, JsonValue] = {"type": word}
    if choice.name is not None:
        fields["name"] = choice.name
    if not conversation.parallel_tool_calls:
        fields["disable_parallel_tool_use"] = True
    return fields
