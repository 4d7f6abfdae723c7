"""The life of the server: ready, draining, stopped. Owns the requests in flight; knows no endpoint and no engine.

    SIGTERM or Ctrl-C       /ready says 503 at once, new requests get 503 + Retry-After, those in flight finish
    ... and a time limit    what is still in flight then ends with an error; the process exits with 0 all the same
    a second signal         what is in flight ends with an error now

Only requests that do work (POST) count; /health, /ready and /metrics answer to the end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cupola.protocol.errors import ApiError, unavailable
from cupola.server.dialect import dialect_of
from cupola.server.json_response import error_response
from cupola.server.record import record_of

RETRY_AFTER = 5.0  # seconds; a successor is usually up by then


@dataclass(slots=True)
class Lifecycle:
    """Whether new work is taken, and what is still running. Belongs to one event loop."""

    draining: bool = False
    stopped: bool = False
    _tasks: set[asyncio.Task[object]] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def begin_drain(self) -> None:
        """No new requests from now on."""
        self.draining = True
        if not self._tasks:
            self._idle.set()

    async def wait_idle(self, seconds: float) -> bool:
        """Waits for the requests in flight; False when some are left after that time."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def stop(self) -> int:
        """Ends every request in flight with an error; returns how many there were."""
        self.begin_drain()
        self.stopped = True
        for task in self._tasks:
            task.cancel()
        return len(self._tasks)

    def enter(self) -> None:
        """The current task starts to work on a request."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)

    def leave(self) -> None:
        """The current task is done with its request."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.discard(task)
        if self.draining and not self._tasks:
            self._idle.set()


class DrainGate:
    """ASGI middleware: counts the requests that do work (POST), refuses them while the server drains."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._lifecycle.draining:
            await error_response(_shutting_down())(scope, receive, send)
            return
        response = _Response(send)
        self._lifecycle.enter()
        try:
            await self._app(scope, receive, response.send)
        except asyncio.CancelledError:
            if not self._lifecycle.stopped:
                raise
            await response.break_off(scope, receive)
        finally:
            self._lifecycle.leave()


class _Response:
    """Remembers how far a response has come, so that it can be ended properly at any point."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self._complete = False

    async def send(self, message: Message) -> None:
        self._started = True
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def break_off(self, scope: Scope, receive: Receive) -> None:
        """Ends the response: with status 503, or with an error frame where a stream has begun."""
        if self._complete:
            return
        error = _shutting_down()
        if self._started:
            dialect = dialect_of(scope["path"])
            body = dialect.error_frame(error, record_of(scope).id) + dialect.done
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
        else:
            await error_response(error)(scope, receive, self._send)


def _shutting_down() -> ApiError:
    return unavailable("The server is shutting down.", "draining", RETRY_AFTER)
