"""What a model's reply is made of, once it is parsed: the events that every endpoint turns into its own frames."""

from __future__ import annotations

from collections.abc import Iterable
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
    """The call has ended: it is complete, unless the limit of tokens cut the reply here."""

    index: int


ReplyEvent = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments | ToolCallEnd


def merged(events: Iterable[ReplyEvent]) -> tuple[ReplyEvent, ...]:
    """The same with neighbours joined that go on with each other."""
    found: list[ReplyEvent] = []
    for event in events:
        last = found[-1] if found else None
        match last, event:
            case (ContentDelta(a), ContentDelta(b)):
                found[-1] = ContentDelta(a + b)
            case (ReasoningDelta(a), ReasoningDelta(b)):
                found[-1] = ReasoningDelta(a + b)
            case (ToolCallArguments(index, a), ToolCallArguments(_, b)):
                found[-1] = ToolCallArguments(index, a + b)
            case _:
                found.append(event)
    return tuple(found)
