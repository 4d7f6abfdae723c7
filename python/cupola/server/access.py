"""The outermost layer: gives each request an id, writes one log line about it, hands its record to the metrics."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cupola.server.logs import FIELDS, REQUEST_ID
from cupola.server.record import RequestRecord, attach

_CLIENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_LOG = logging.getLogger("cupola.access")


class AccessLog:
    """ASGI middleware. A client's own x-request-id is kept; every response carries one.

    Args:
        app: the next layer.
        observe: called once for each request, at its end.
        quiet_paths: not logged while all is well, because they are asked again and again.
    """

    def __init__(self, app: ASGIApp, observe: Callable[[RequestRecord], None], quiet_paths: frozenset[str]) -> None:
        self._app = app
        self._observe = observe
        self._quiet_paths = quiet_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(_request_id(scope), scope["method"], scope["path"])
        attach(scope, record)
        REQUEST_ID.set(record.id)  # the task is this request's own
        # Anthropic's clients look for the second.
        headers = [(b"x-request-id", record.id.encode()), (b"request-id", record.id.encode())]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            record.finished = time.perf_counter()
            self._observe(record)
            if record.status >= 400 or record.path not in self._quiet_paths:
                _LOG.info("%s", log_line(record), extra={FIELDS: log_fields(record)})


def log_line(record: RequestRecord) -> str:
    """One request in aligned columns; what does not apply is left out at the end."""
    path = record.path if record.path.isprintable() else ascii(record.path)
    line = f"{record.method:<4} {path[:64]:<22} {record.status} {_milliseconds(record.duration)}"
    if record.prompt_tokens:
        line += f"  in {record.prompt_tokens:>5}  out {record.completion_tokens:>5}"
    if record.time_to_first_token is not None:
        line += f"  first {_milliseconds(record.time_to_first_token)}"
    if record.token_rate is not None:
        line += f"  {record.token_rate:>7.1f} tok/s"
    return f"{line}  {record.id}"


def log_fields(record: RequestRecord) -> dict[str, str | float | None]:
    """The same for programs."""
    first = record.time_to_first_token
    return {
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "error": record.error_code,
        "model": record.model,
        "duration_ms": round(record.duration * 1000, 3),
        "time_to_first_token_ms": None if first is None else round(first * 1000, 3),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
    }


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:>8.1f} ms"


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _CLIENT_ID.fullmatch(value):
            return str(value, "ascii")
    return f"req-{uuid.uuid4().hex}"
