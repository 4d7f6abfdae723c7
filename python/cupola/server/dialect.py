"""How an API says what is not an answer: errors, the end of a stream, signs of life. Knows no endpoint's frames.

Two APIs share the server, OpenAI's and Anthropic's; OpenAI's streams end in a way of their own under `/v1/responses`.
Which one a request speaks is told by its path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import BaseModel

from cupola.protocol.anthropic_errors import AnthropicErrorBody, anthropic_error
from cupola.protocol.errors import ApiError, ErrorBody
from cupola.protocol.responses_object import error_fields

MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"


# JSON may hold them raw, and they end no line of an event stream; but many clients cut lines as Python's
# `str.splitlines` does, which takes them for ends.
_SEEN_AS_LINE_ENDS = ((b"\xc2\x85", rb"\u0085"), (b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))


def frame(payload: bytes) -> bytes:
    """One event without a name; JSON holds no raw line break, so one `data:` line is enough."""
    return b"data: " + _one_line(payload) + b"\n\n"


def named_frame(name: bytes, payload: bytes) -> bytes:
    """One event with a name."""
    return b"event: " + name + b"\ndata: " + _one_line(payload) + b"\n\n"


def _one_line(payload: bytes) -> bytes:
    for raw, escaped in _SEEN_AS_LINE_ENDS:
        payload = payload.replace(raw, escaped)
    return payload


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the layers around an endpoint have to know of its API.

    Args:
        error_body: what the body of an error looks like, for the OpenAPI document.
        error: the body of a response that is an error, given the id of the request.
        error_frame: the same in the middle of a stream.
        done: the last bytes of every stream.
        ping: what is sent while there is nothing else to send.
    """

    error_body: type[BaseModel]
    error: Callable[[ApiError, str], bytes]
    error_frame: Callable[[ApiError, str], bytes]
    done: bytes
    ping: bytes


OPENAI = Dialect(
    error_body=ErrorBody,
    error=lambda error, _request_id: error.to_json(),
    error_frame=lambda error, _request_id: frame(error.to_json()),
    done=b"data: [DONE]\n\n",
    ping=b": ping\n\n",
)
ANTHROPIC = Dialect(
    error_body=AnthropicErrorBody,
    error=anthropic_error,
    error_frame=lambda error, request_id: named_frame(b"error", anthropic_error(error, request_id)),
    done=b"",
    ping=named_frame(b"ping", b'{"type":"ping"}'),
)
_NOBODY_COUNTS = b'{"type":"error","sequence_number":0,'  # whoever writes the stream is gone
RESPONSES_API = replace(
    OPENAI,
    error_frame=lambda error, _request_id: named_frame(b"error", _NOBODY_COUNTS + error_fields(error) + b"}"),
    done=b"",
)


def dialect_of(path: str) -> Dialect:
    """The API that a path belongs to."""
    if path == MESSAGES or path.startswith(MESSAGES + "/"):
        return ANTHROPIC
    return RESPONSES_API if path == RESPONSES else OPENAI
