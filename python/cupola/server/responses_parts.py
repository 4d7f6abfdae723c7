"""The items of a response while they are written: each knows its events, from its first to its last.

Events are written as bytes, once; what does not change from one piece of text to the next is written when the item
begins. Knows no reply and no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from cupola.protocol.logprobs import ContentLogprob
from cupola.protocol.responses_items import (
    FunctionCallItem,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    SummaryText,
    new_id,
)
from cupola.server.dialect import named_frame

_LOGPROBS = TypeAdapter(tuple[ContentLogprob, ...])


class EventWriter:
    """Numbers the events of one stream."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def event(self, kind: bytes, fields: bytes) -> bytes:
        """One event; `fields` are the members of its object beside type and number."""
        number = self._next
        self._next += 1
        return named_frame(kind, b'{"type":"%b","sequence_number":%d,%b}' % (kind, number, fields))


class OpenItem(Protocol):
    """An item that grows; `index` is its place in the output."""

    def begin(self) -> bytes:
        """The events that announce it."""

    def more(self, text: str, /) -> bytes:
        """More of its text."""

    def end(self, status: ItemStatus) -> tuple[bytes, OutputItem]:
        """Its last events, and the item as a whole."""


def _added(writer: EventWriter, index: int, item: OutputItem) -> bytes:
    return writer.event(b"response.output_item.added", b'"output_index":%d,"item":%b' % (index, to_json(item)))


def _done(writer: EventWriter, index: int, item: OutputItem) -> bytes:
    return writer.event(b"response.output_item.done", b'"output_index":%d,"item":%b' % (index, to_json(item)))


class OpenMessage:
    """A message of one part, `output_text`."""

    def __init__(self, writer: EventWriter, index: int) -> None:
        self._writer, self._index = writer, index
        self._item = MessageItem(id=new_id("msg"), status="in_progress", role="assistant", content=())
        self._at = _place(self._item, index) + b',"content_index":0'
        self._text: list[str] = []
        self._logprobs: list[ContentLogprob] = []

    def begin(self) -> bytes:
        """See OpenItem."""
        part = self._at + b',"part":' + to_json(OutputText(text=""))
        return _added(self._writer, self._index, self._item) + self._writer.event(b"response.content_part.added", part)

    def more(self, text: str, logprobs: Sequence[ContentLogprob] = ()) -> bytes:
        """See OpenItem; only a message's text has log-probabilities in this API."""
        self._text.append(text)
        self._logprobs.extend(logprobs)
        told = _LOGPROBS.dump_json(tuple(logprobs)) if logprobs else b"[]"
        fields = b'%b,"delta":%b,"logprobs":%b' % (self._at, to_json(text), told)
        return self._writer.event(b"response.output_text.delta", fields)

    def end(self, status: ItemStatus) -> tuple[bytes, OutputItem]:
        """See OpenItem."""
        part = OutputText(text="".join(self._text), logprobs=tuple(self._logprobs))
        item = self._item.model_copy(update={"status": status, "content": (part,)})
        told = b',"text":%b,"logprobs":%b' % (to_json(part.text), _LOGPROBS.dump_json(part.logprobs))
        events = self._writer.event(b"response.output_text.done", self._at + told)
        events += self._writer.event(b"response.content_part.done", self._at + b',"part":' + to_json(part))
        return events + _done(self._writer, self._index, item), item


class OpenReasoning:
    """What the model thinks, in full: one part, `reasoning_text`."""

    def __init__(self, writer: EventWriter, index: int) -> None:
        self._writer, self._index = writer, index
        self._item = ReasoningItem(id=new_id("rs"), status="in_progress", content=())
        self._at = _place(self._item, index) + b',"content_index":0'
        self._text: list[str] = []

    def begin(self) -> bytes:
        """See OpenItem."""
        part = self._at + b',"part":' + to_json(ReasoningText(text=""))
        return _added(self._writer, self._index, self._item) + self._writer.event(b"response.content_part.added", part)

    def more(self, text: str) -> bytes:
        """See OpenItem."""
        self._text.append(text)
        return self._writer.event(b"response.reasoning_text.delta", self._at + b',"delta":' + to_json(text))

    def end(self, status: ItemStatus) -> tuple[bytes, OutputItem]:
        """See OpenItem."""
        part = ReasoningText(text="".join(self._text))
        item = self._item.model_copy(update={"status": status, "content": (part,)})
        events = self._writer.event(b"response.reasoning_text.done", self._at + b',"text":' + to_json(part.text))
        events += self._writer.event(b"response.content_part.done", self._at + b',"part":' + to_json(part))
        return events + _done(self._writer, self._index, item), item


class OpenSummary:
    """What the model thinks, as the summary that the client asked for: one part, `summary_text`."""

    def __init__(self, writer: EventWriter, index: int) -> None:
        self._writer, self._index = writer, index
        self._item = ReasoningItem(id=new_id("rs"), status="in_progress")
        self._at = _place(self._item, index) + b',"summary_index":0'
        self._text: list[str] = []

    def begin(self) -> bytes:
        """See OpenItem."""
        part = self._at + b',"part":' + to_json(SummaryText(text=""))
        added = _added(self._writer, self._index, self._item)
        return added + self._writer.event(b"response.reasoning_summary_part.added", part)

    def more(self, text: str) -> bytes:
        """See OpenItem."""
        self._text.append(text)
        return self._writer.event(b"response.reasoning_summary_text.delta", self._at + b',"delta":' + to_json(text))

    def end(self, status: ItemStatus) -> tuple[bytes, OutputItem]:
        """See OpenItem."""
        part = SummaryText(text="".join(self._text))
        item = self._item.model_copy(update={"status": status, "summary": (part,)})
        text = self._at + b',"text":' + to_json(part.text)
        events = self._writer.event(b"response.reasoning_summary_text.done", text)
        whole = self._at + b',"part":' + to_json(part)
        events += self._writer.event(b"response.reasoning_summary_part.done", whole)
        return events + _done(self._writer, self._index, item), item


class OpenCall:
    """A call of a function; its text are the arguments."""

    def __init__(self, writer: EventWriter, index: int, call_id: str, name: str) -> None:
        self._writer, self._index = writer, index
        self._item = FunctionCallItem(id=new_id("fc"), status="in_progress", call_id=call_id, name=name, arguments="")
        self._at = _place(self._item, index)
        self._arguments: list[str] = []

    @property
    def is_whole(self) -> bool:
        """The arguments are JSON: nothing of them is missing."""
        try:
            from_json("".join(self._arguments))
        except ValueError:
            return False
        return True

    def begin(self) -> bytes:
        """See OpenItem."""
        return _added(self._writer, self._index, self._item)

    def more(self, text: str) -> bytes:
        """See OpenItem."""
        self._arguments.append(text)
        fields = self._at + b',"delta":' + to_json(text)
        return self._writer.event(b"response.function_call_arguments.delta", fields)

    def end(self, status: ItemStatus) -> tuple[bytes, OutputItem]:
        """See OpenItem."""
        arguments = "".join(self._arguments)
        item = self._item.model_copy(update={"status": status, "arguments": arguments})
        fields = b'%b,"name":%b,"arguments":%b' % (self._at, to_json(item.name), to_json(arguments))
        events = self._writer.event(b"response.function_call_arguments.done", fields)
        return events + _done(self._writer, self._index, item), item


def _place(item: OutputItem, index: int) -> bytes:
    return b'"item_id":%b,"output_index":%d' % (to_json(item.id), index)
