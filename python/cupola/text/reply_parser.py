"""A model's reply, piece by piece, as events: content, reasoning, tool calls. Knows no wire format and no engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """A call begins; `index` counts the calls of the reply from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of a call's arguments, which are JSON text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """The call is complete."""

    index: int


ReplyEvent = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments | ToolCallEnd


class ReplyParser:
    """Turns the text of one reply into events."""

    def push(self, text: str) -> tuple[ReplyEvent, ...]:
        """More text; gives what is certain now."""
        return (ContentDelta(text),) if text else ()

    def finish(self) -> tuple[ReplyEvent, ...]:
        """The text is complete; gives what was held back."""
        return ()
