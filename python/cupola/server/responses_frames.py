"""A reply as the events of `/v1/responses`, and as the response that they add up to. Knows no HTTP and no store.

The events of one item are in `responses_parts.py`; here is what lies around them: to which item a piece of the reply
goes, how a response begins and ends. A response that is not streamed is the same without its events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cupola.protocol.errors import ApiError
from cupola.protocol.generation import Usage
from cupola.protocol.logprobs import ContentLogprob
from cupola.protocol.responses_items import ItemStatus, OutputItem
from cupola.protocol.responses_object import ErrorCode, ResponseError, ResponseObject, ResponseStatus, error_fields
from cupola.server.logprobs import content_logprobs
from cupola.server.reply import ReplyDelta
from cupola.server.responses_parts import EventWriter, OpenCall, OpenItem, OpenMessage, OpenReasoning, OpenSummary
from cupola.text.reply_parser import ContentDelta, ReasoningDelta, ReplyEvent, ToolCallArguments, ToolCallBegin

_LAST_EVENTS = {"cancelled": b"response.incomplete"}  # there is no event of that name


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a reply that did not come from the model: an error, or without one a wish to cancel it."""

    error: ApiError | None = None


class ResponseFrames:
    """Follows one reply.

    Args:
        begun: the response before there is any output.
        summarized: thoughts go into summaries.
        with_logprobs: log-probabilities were asked for.
        on_end: gets the response as soon as it is complete.
    """

    def __init__(
        self,
        begun: ResponseObject,
        *,
        summarized: bool = False,
        with_logprobs: bool = False,
        on_end: Callable[[ResponseObject], None] = lambda _: None,
    ) -> None:
        self.response = begun
        self._summarized = summarized
        self._with_logprobs = with_logprobs
        self._on_end = on_end
        self._writer = EventWriter()
        self._open: OpenItem | None = None
        self._done: list[OutputItem] = []
        self._unplaced: list[ContentLogprob] = []
        self._status: ResponseStatus = "completed"
        self._error: ResponseError | None = None

    def begin(self, _index: int) -> bytes:
        """The events before any output."""
        return self._lifecycle(b"response.created") + self._lifecycle(b"response.in_progress")

    def more(self, _index: int, delta: ReplyDelta | Ending) -> bytes:
        """The events of what is new."""
        if isinstance(delta, Ending):
            return self._break_off(delta)
        if self._with_logprobs:
            other = self._open is not None and not isinstance(self._open, OpenMessage)
            self._unplaced = _of_text([*self._unplaced, *content_logprobs(delta.logprobs)], delta.events, other)
        return b"".join([self._event(event) for event in delta.events])

    def finish(self, _index: int, delta: ReplyDelta | Ending) -> bytes:
        """The end of the output, where it is the model's own."""
        if isinstance(delta, Ending) or delta.finish is None:
            return b""
        self._status = "incomplete" if delta.finish == "length" else "completed"
        rest = b""
        if self._unplaced and isinstance(self._open, OpenMessage):
            rest = self._text("")
        if self._open is None and not self._done:
            rest += self._begin(OpenMessage(self._writer, 0))  # a silent model has said something empty
        return rest + self._close("incomplete" if delta.finish == "length" else "completed")

    def usage(self, usage: Usage) -> bytes:
        """The last event, with the whole response."""
        self.response = self.response.ended(self._status, tuple(self._done), usage, self._error)
        self._on_end(self.response)
        return self._lifecycle(_LAST_EVENTS.get(self._status, b"response." + self._status.encode()))

    def _event(self, event: ReplyEvent) -> bytes:
        if isinstance(event, ContentDelta):
            return self._text(event.text)
        if isinstance(event, ReasoningDelta):
            kind = OpenSummary if self._summarized else OpenReasoning
            events = b"" if isinstance(self._open, kind) else self._begin(kind(self._writer, self._next_index))
            return events + self._more(event.text)
        if isinstance(event, ToolCallBegin):
            return self._begin(OpenCall(self._writer, self._next_index, event.id, event.name))
        if isinstance(event, ToolCallArguments):
            return self._more(event.text)
        # A call ends, too, where the tokens do.
        whole = isinstance(self._open, OpenCall) and self._open.is_whole
        return self._close("completed" if whole else "incomplete")

    def _text(self, text: str) -> bytes:
        events, message = b"", self._open
        if not isinstance(message, OpenMessage):
            message = OpenMessage(self._writer, self._next_index)
            events = self._begin(message)
        logprobs, self._unplaced = self._unplaced, []
        return events + message.more(text, logprobs)

    def _more(self, text: str) -> bytes:
        assert self._open is not None
        return self._open.more(text)

    @property
    def _next_index(self) -> int:
        return len(self._done) + (self._open is not None)

    def _begin(self, item: OpenItem) -> bytes:
        ended = self._close("completed")
        self._open = item
        return ended + item.begin()

    def _close(self, status: ItemStatus) -> bytes:
        if self._open is None:
            return b""
        events, item = self._open.end(status)
        self._open = None
        self._done.append(item)
        return events

    def _break_off(self, ending: Ending) -> bytes:
        events = self._close("incomplete")
        error = ending.error
        if error is None:
            self._status = "cancelled"
            return events
        self._status = "failed"
        self._error = ResponseError(code=_error_code(error.status), message=error.message)
        return events + self._writer.event(b"error", error_fields(error))

    def _lifecycle(self, kind: bytes) -> bytes:
        return self._writer.event(kind, b'"response":' + self.response.model_dump_json().encode())


def _of_text(logprobs: list[ContentLogprob], events: Sequence[ReplyEvent], other: bool) -> list[ContentLogprob]:
    """Without the tokens of thoughts and calls: of a piece that has both, the last ones, as far as its text goes.

    Args:
        logprobs: of tokens that no event has had yet.
        other: what came before was no text, so that the tokens of its delimiter may be among them.
    """
    others = [index for index, event in enumerate(events) if not isinstance(event, ContentDelta)]
    if not others and not (other and events):
        return logprobs
    first_event = others[-1] + 1 if others else 0
    text = "".join(event.text for event in events[first_event:] if isinstance(event, ContentDelta))
    room, first = len(text.encode()), len(logprobs)
    while first > 0 and len(logprobs[first - 1].bytes) <= room:
        first -= 1
        room -= len(logprobs[first].bytes)
    return logprobs[first:]


def _error_code(status: int) -> ErrorCode:
    if status == 429:
        return "rate_limit_exceeded"
    return "invalid_prompt" if status < 500 else "server_error"
