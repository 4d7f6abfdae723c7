"""The events of a stream of `/v1/messages`: what is new about a reply, as blocks that begin, grow and end.

message_start, ping; for each block content_block_start, content_block_delta ..., content_block_stop; message_delta,
message_stop. Blocks never overlap.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic_core import to_json

from cupola.protocol.anthropic import MessagesRequest, MessagesUsage, StopReason
from cupola.protocol.anthropic_conversation import signature
from cupola.protocol.generation import Usage
from cupola.server.dialect import ANTHROPIC, named_frame
from cupola.server.reply import Answer, Reply, ReplyDelta
from cupola.text.reply_parser import (
    ContentDelta,
    ReasoningDelta,
    ReplyEvent,
    ToolCallArguments,
    ToolCallBegin,
)

Kind = Literal["text", "thinking", "tool_use"]
_BEGINNINGS: dict[Kind, bytes] = {
    "text": b'{"type":"text","text":""}',
    "thinking": b'{"type":"thinking","thinking":"","signature":""}',
}


class Ending(NamedTuple):
    """How an answer ended, in Anthropic's words."""

    stop_reason: StopReason
    stop_sequence: str | None = None


def ending(last: ReplyDelta | Answer, usage: Usage, limit: int) -> Ending:
    """The end of an answer; `limit` is the request's `max_tokens`, which the context may not have had room for."""
    if last.finish == "tool_calls":
        return Ending("tool_use")
    if last.finish == "length":
        return Ending("max_tokens" if usage.completion_tokens >= limit else "model_context_window_exceeded")
    return Ending("end_turn") if last.stop_sequence is None else Ending("stop_sequence", last.stop_sequence)


class MessageFrames:
    """One stream.

    Args:
        message_id, model: as the message shows them.
        body: what was asked for.
        reply: the only choice; it tells the tokens of the prompt once it has started.
    """

    def __init__(self, message_id: str, model: str, body: MessagesRequest, reply: Reply) -> None:
        self._head: dict[str, object] = {"id": message_id, "type": "message", "role": "assistant", "model": model}
        self._reply = reply
        self._limit = body.max_tokens
        self._shown = body.thinking_is_shown
        self._open: Kind | None = None
        self._index = -1
        self._thoughts: list[str] = []
        self._last: ReplyDelta | None = None

    def begin(self, _index: int) -> bytes:
        usage = MessagesUsage.of(self._reply.usage).model_dump()
        message = self._head | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        start = named_frame(b"message_start", b'{"type":"message_start","message":%b}' % to_json(message))
        return start + ANTHROPIC.ping

    def more(self, _index: int, delta: ReplyDelta) -> bytes:
        return b"".join(map(self._event, delta.events))

    def finish(self, _index: int, delta: ReplyDelta) -> bytes:
        if delta.finish is None:
            return b""
        self._last = delta
        return self._close()

    def usage(self, usage: Usage) -> bytes:
        assert self._last is not None, "a stream without a last delta has raised"
        delta = to_json(ending(self._last, usage, self._limit)._asdict())
        counts = to_json(MessagesUsage.of(usage))
        end = named_frame(b"message_delta", b'{"type":"message_delta","delta":%b,"usage":%b}' % (delta, counts))
        return end + named_frame(b"message_stop", b'{"type":"message_stop"}')

    def _event(self, event: ReplyEvent) -> bytes:
        if isinstance(event, ContentDelta):
            return self._grow("text", b'{"type":"text_delta","text":%b}' % to_json(event.text))
        if isinstance(event, ReasoningDelta):
            self._thoughts.append(event.text)
            if not self._shown:
                return self._begin("thinking") if self._open != "thinking" else b""
            return self._grow("thinking", b'{"type":"thinking_delta","thinking":%b}' % to_json(event.text))
        if isinstance(event, ToolCallBegin):
            block = b'{"type":"tool_use","id":%b,"name":%b,"input":{}}' % (to_json(event.id), to_json(event.name))
            return self._begin("tool_use", block)
        if isinstance(event, ToolCallArguments):
            return self._delta(b'{"type":"input_json_delta","partial_json":%b}' % to_json(event.text))
        return self._close()

    def _grow(self, kind: Kind, delta: bytes) -> bytes:
        begin = b"" if self._open == kind else self._begin(kind)
        return begin + self._delta(delta)

    def _begin(self, kind: Kind, block: bytes | None = None) -> bytes:
        end = self._close()
        self._open = kind
        self._index += 1
        fields = (self._index, block or _BEGINNINGS[kind])
        start = b'{"type":"content_block_start","index":%d,"content_block":%b}' % fields
        return end + named_frame(b"content_block_start", start)

    def _delta(self, delta: bytes) -> bytes:
        payload = b'{"type":"content_block_delta","index":%d,"delta":%b}' % (self._index, delta)
        return named_frame(b"content_block_delta", payload)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        end = b""
        if self._open == "thinking":
            signed = signature("".join(self._thoughts), shown=self._shown)
            self._thoughts.clear()
            end = self._delta(b'{"type":"signature_delta","signature":%b}' % to_json(signed))
        self._open = None
        payload = b'{"type":"content_block_stop","index":%d}' % self._index
        return end + named_frame(b"content_block_stop", payload)
