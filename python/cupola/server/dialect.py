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


def frame(payload: bytes) -> bytes:
    """One event without a name; JSON holds no raw line break, so one `data:` line is enough."""
    return b"data: " + payload + b"\n\n"


def named_frame(name: bytes, payload: bytes) -> bytes:
    """One event with a name."""
    return b"event: " + name + b"\ndata: " + payload + b"\n\n"


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
