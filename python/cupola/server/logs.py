"""What the server writes to its log, as text for people or as JSON for programs. Knows no endpoint.

Every line that is written while a request is worked on carries the request's id, whoever writes it: the id lies in the
context of the task, and the formatter puts it in.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

from cupola.server.choices import LogFormat, LogLevel

REQUEST_ID: ContextVar[str | None] = ContextVar("cupola_request_id", default=None)

FIELDS = "cupola_fields"
"""Key of `extra` under which a line brings fields of its own for JSON; a text line has them in its message."""


class TextFormatter(logging.Formatter):
    """`10:32:07 INFO     message  [request id]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        line = super().formatMessage(record)
        request_id = REQUEST_ID.get()
        return line if request_id is None or request_id in line else f"{line}  {request_id}"


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, request_id, and the fields that the line brings."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = REQUEST_ID.get()
        if request_id is not None:
            line["request_id"] = request_id
        fields = getattr(record, FIELDS, None)
        if isinstance(fields, Mapping):
            line.update(fields)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: LogLevel, log_format: LogFormat) -> None:
    """Lets the process log to standard error, and nowhere else."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # uvicorn's own lines about starting and stopping repeat what ours say better.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
