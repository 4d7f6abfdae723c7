"""What the log and the metrics know about one request. Travels in the ASGI scope, from the outermost layer inwards."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.types import Scope

_KEY = "cupola.record"


@dataclass(slots=True)
class RequestRecord:
    """Filled in by the layers that learn it; times are of `time.perf_counter`."""

    id: str
    method: str
    path: str
    model: str | None = None  # the first of its names
    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    finished: float | None = None
    status: int = 499  # the client went away before a status was sent
    error_code: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def duration(self) -> float:
        """Seconds from the first byte of the request to the end of the response."""
        return (self.finished or time.perf_counter()) - self.started

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds until the first generated token, where there was one."""
        return None if self.first_token is None else self.first_token - self.started

    @property
    def token_rate(self) -> float | None:
        """Generated tokens a second after the first one, all choices together."""
        if self.first_token is None or self.completion_tokens < 2:
            return None
        seconds = (self.finished or time.perf_counter()) - self.first_token
        return (self.completion_tokens - 1) / seconds if seconds > 0 else None


def attach(scope: Scope, record: RequestRecord) -> None:
    """Puts the record into the scope."""
    scope[_KEY] = record


def record_of(scope: Scope) -> RequestRecord:
    """The record of the request that this scope belongs to."""
    record = scope[_KEY]
    assert isinstance(record, RequestRecord)
    return record
