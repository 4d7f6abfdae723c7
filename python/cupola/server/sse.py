"""Server-sent events: the response that sends frames. Knows no endpoint; the API's own bytes are in `dialect.py`.

A stream ends in one of three ways: the last bytes of its API (`data: [DONE]`); an error frame before them; or the
client goes away, and the generator of frames is closed at once, wherever it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cupola.errors import CupolaError
from cupola.protocol.errors import ApiError, api_error
from cupola.server.connection import disconnected
from cupola.server.dialect import Dialect, dialect_of
from cupola.server.record import RequestRecord, record_of

PING_INTERVAL = 15.0  # seconds of silence after which proxies and clients get a sign of life

_LOG = logging.getLogger("cupola.server")


class EventStream(Response):
    """Sends frames as they come, and watches the connection meanwhile.

    The headers leave at once: whatever can be refused with a status code has to be refused before.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None], close: Callable[[], Awaitable[None]]) -> None:
        """`close` is awaited at the end of the response, whatever the end is: even before the first frame."""
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._frames = frames
        self._close = close
        self._sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        dialect = dialect_of(scope["path"])
        sending = asyncio.create_task(self._send_frames(dialect, record_of(scope), send))
        watching = asyncio.create_task(disconnected(receive))
        try:
            await self._wait_for_either(sending, watching, send, dialect.ping)
        finally:
            await _end(watching)
            await _end(sending)
            await self._close()
        if not sending.cancelled():
            sending.result()

    async def _wait_for_either(
        self, sending: asyncio.Task[None], watching: asyncio.Task[None], send: Send, ping: bytes
    ) -> None:
        """Returns when one is done; pings the client while nothing else is sent."""
        while True:
            sent = self._sent
            done, _ = await asyncio.wait(
                (sending, watching), timeout=PING_INTERVAL, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return
            if sent == self._sent:
                await send({"type": "http.response.body", "body": ping, "more_body": True})

    async def _send_frames(self, dialect: Dialect, record: RequestRecord, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        last = b""
        try:
            async with contextlib.aclosing(self._frames) as frames:
                async for data in frames:
                    if data:
                        self._sent += 1
                        await send({"type": "http.response.body", "body": data, "more_body": True})
        except Exception as error:  # an exception in the middle of a stream becomes its last frame but one
            told = _told(error)
            record.error_code = told.code
            last = dialect.error_frame(told, record.id)
        await send({"type": "http.response.body", "body": last + dialect.done, "more_body": False})


def _told(error: Exception) -> ApiError:
    """What the client is told of an exception."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, CupolaError):
        told = api_error(error)
        if told.status >= 500:
            _LOG.error("a stream failed: %s", error.message)
        return told
    _LOG.error("a stream failed", exc_info=error)
    return ApiError(500, "The server failed while it streamed.", code="internal_error")


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits until its clean-up is done."""
    task.cancel()
    await asyncio.wait((task,))
