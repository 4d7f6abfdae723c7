"""Messages of a conversation as clients send them: roles and text. No template, no tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import WireModel

Role = Literal["system", "developer", "user", "assistant", "tool"]


class TextPart(WireModel):
    """One piece of a message's text."""

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"annotations": ([],)}

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _name_other_types(cls, data: object) -> object:
        kind = data.get("type") if isinstance(data, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise PydanticCustomError(
                "unsupported_content",
                "content parts of type `{kind}` are not supported; only `text` is",
                {"kind": kind[:64]},
            )
        return data


def _as_parts(content: object) -> object:
    """A plain string is one text part: behind this line there is a single form of content."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class ChatMessage(WireModel):
    """One turn. `content` is given as a string or a list of text parts, and kept as parts.

    Neutral fields are those that a client echoes when it sends back a message that it received.
    """

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "refusal": (),
        "annotations": ([],),
        "audio": (),
        "function_call": (),
        "tool_calls": ([],),
        "reasoning_content": ("",),
    }

    role: Role
    content: Annotated[tuple[TextPart, ...] | None, BeforeValidator(_as_parts)] = None
    name: str | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _only_an_assistant_may_be_silent(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError(
                "missing_content", "a message of role `{role}` needs `content`", {"role": self.role}
            )
        return self

    @property
    def text(self) -> str:
        """The text of all parts, joined."""
        return "".join(part.text for part in self.content or ())
