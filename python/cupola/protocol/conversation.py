"""Messages, content parts, tools and tool calls: the one definition that every endpoint shares.

The wire shapes (chat, responses, messages) convert to these values and back; a chat template gets what
`Conversation.template_messages` gives. Frozen, free of any wire format, with JSON of their own for storage. Names of
fields in errors are those of the chat endpoint; an endpoint that calls them otherwise renames them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from cupola.errors import RequestError

Role = Literal["system", "developer", "user", "assistant", "tool"]
ToolChoiceMode = Literal["none", "auto", "required", "named"]

MAX_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME_RULE = "letters, digits, `_` and `-`, 1 to 64 of them"
_ECHO = 80  # characters of a refused value that an error repeats


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of a message's text."""

    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image, by its URL or as a `data:` URL."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"
    type: Literal["image"] = "image"


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model wants made. `arguments` is JSON text, kept as the model wrote it."""

    id: str
    name: str
    arguments: str

    @property
    def parsed(self) -> dict[str, JsonValue]:
        """The arguments as an object; none at all are an empty one. ValueError: they are no JSON object."""
        value = json.loads(self.arguments) if self.arguments.strip() else {}
        if not isinstance(value, dict):
            raise ValueError("the arguments are not a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Args:
        content: empty for an assistant that only calls tools.
        name: of who speaks, where the client tells it.
        tool_calls: of an assistant.
        tool_call_id: of a tool's answer: the call that it answers.
        reasoning: what an assistant thought before it answered; None where it did not, or nobody kept it.
    """

    role: Role
    content: tuple[Part, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """The text of all parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


def text_message(role: Role, text: str) -> Message:
    """A message of one text."""
    return Message(role, (TextPart(text),) if text else ())


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `strict`: its arguments have to fit `parameters`, a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, JsonValue] = field(default_factory=dict)
    strict: bool = False

    @property
    def template_form(self) -> dict[str, object]:
        """As chat templates take it: OpenAI's shape."""
        function: dict[str, object] = {"name": self.name, "description": self.description or ""}
        function["parameters"] = self.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools may be called (auto), must be (required; named: this one), or must not be (none)."""

    mode: ToolChoiceMode = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the model shall go on with.

    Args:
        messages: at least one.
        tools: functions that it may call; their names differ.
        parallel_tool_calls: several calls in one answer are welcome.
        reasoning_effort: how much it shall think, in the words of its chat template.
        thinking_budget: most tokens of thinking; None: as many as it wants.
        template_arguments: further variables of the chat template, such as `enable_thinking`.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    reasoning_effort: str | None = None
    thinking_budget: int | None = None
    template_arguments: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that the next message may call."""
        if self.tool_choice.mode == "none":
            return ()
        named = self.tool_choice.name
        return tuple(tool for tool in self.tools if named is None or tool.name == named)

    def validate(self) -> None:
        """RequestError unless everything fits together; `param` names the field."""
        if not self.messages:
            raise _refused("messages", "it is empty; at least one message is needed")
        _check_tools(self.tools, self.tool_choice)
        called: set[str] = set()
        for index, message in enumerate(self.messages):
            _check_message(f"messages.{index}", message, called)
            called.update(call.id for call in message.tool_calls)

    def template_messages(
        self, *, parts: bool = False, developer: bool = False, text_arguments: bool = False
    ) -> list[dict[str, object]]:
        """The messages as Hugging Face's chat templates take them. Valid conversations only.

        Args:
            parts: the template wants content as a list of parts, and not as a string.
            developer: it knows that role; else `developer` becomes `system`.
            text_arguments: it wants the arguments of calls as JSON text, and not as objects.
        """
        names = {call.id: call.name for message in self.messages for call in message.tool_calls}
        return [_template_message(message, names, parts, developer, text_arguments) for message in self.messages]

    def to_json(self) -> bytes:
        """All of it, for storage and other processes; `from_json` reads it back."""
        return _adapter().dump_json(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Conversation:
        """What `to_json` wrote. RequestError: it is something else."""
        try:
            return _adapter().validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RequestError(f"This is not a conversation: {first['msg']}", param=where or None) from error


@cache
def _adapter() -> TypeAdapter[Conversation]:
    return TypeAdapter(Conversation)


def _check_tools(tools: Sequence[Tool], choice: ToolChoice) -> None:
    if len(tools) > MAX_TOOLS:
        raise _refused("tools", f"there are {len(tools)}; allowed: at most {MAX_TOOLS}")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        _check_name(f"tools.{index}.function.name", tool.name)
        if tool.name in names:
            raise _refused(f"tools.{index}.function.name", f"two tools have the name `{tool.name}`")
        names.add(tool.name)
    if choice.mode in ("required", "named") and not tools:
        raise _refused("tool_choice", "it asks for a call, but there are no `tools`")
    if choice.mode == "named" and choice.name not in names:
        known = ", ".join(f"`{name}`" for name in sorted(names)[:8])
        raise _refused("tool_choice", f"there is no tool `{(choice.name or '')[:_ECHO]}`; `tools` has {known}")


def _check_message(where: str, message: Message, called: set[str]) -> None:
    if message.role != "assistant" and not message.content:
        raise _refused(where, f"a message of role `{message.role}` needs `content`")
    if message.tool_calls and message.role != "assistant":
        raise _refused(f"{where}.tool_calls", "only the assistant calls tools")
    if (message.tool_call_id is None) == (message.role == "tool"):
        reason = "is needed in a message of role `tool`, and only there"
        raise _refused(f"{where}.tool_call_id", f"it {reason}")
    if message.tool_call_id is not None and message.tool_call_id not in called:
        reason = f"no message before it calls a tool with the id `{message.tool_call_id[:_ECHO]}`"
        raise _refused(f"{where}.tool_call_id", reason, "Send the assistant's message with its `tool_calls` too.")
    for index, part in enumerate(message.content):
        if isinstance(part, ImagePart):
            reason = "images are not supported by this model"
            raise _refused(f"{where}.content.{index}", reason, code="unsupported_parameter")
    _check_calls(where, message.tool_calls)


def _check_calls(where: str, calls: Sequence[ToolCall]) -> None:
    if len({call.id for call in calls}) < len(calls):
        raise _refused(f"{where}.tool_calls", "two calls have the same id")
    for index, call in enumerate(calls):
        _check_name(f"{where}.tool_calls.{index}.function.name", call.name)
        try:
            call.parsed  # noqa: B018 (raises)
        except (ValueError, RecursionError):
            raise _refused(f"{where}.tool_calls.{index}.function.arguments", "it is not a JSON object") from None


def _check_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise _refused(where, f"a name has {_NAME_RULE}, got `{name[:_ECHO]}`")


def _template_message(
    message: Message, names: Mapping[str, str], parts: bool, developer: bool, text_arguments: bool
) -> dict[str, object]:
    role = "system" if message.role == "developer" and not developer else message.role
    found: dict[str, object] = {"role": role, "content": message.text}
    if parts:
        found["content"] = [{"type": "text", "text": part.text} for part in message.content if part.type == "text"]
    name = message.name or names.get(message.tool_call_id or "")
    if name is not None:
        found["name"] = name
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        found["reasoning_content"] = message.reasoning
    if message.tool_calls:
        found["tool_calls"] = [_template_call(call, text_arguments) for call in message.tool_calls]
    return found


def _template_call(call: ToolCall, text_arguments: bool) -> dict[str, object]:
    arguments = (call.arguments or "{}") if text_arguments else call.parsed
    return {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _refused(where: str, reason: str, hint: str | None = None, *, code: str | None = None) -> RequestError:
    return RequestError(f"`{where}`: {reason}", param=where, hint=hint, code=code)
