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
from cupola.server.dialect import Dialect, dialect_of
from cupola.server.record import record_of

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
        frames = _with_end(self._frames, dialect, record_of(scope).id)
        sending = asyncio.create_task(self._send_frames(frames, send))
        watching = asyncio.create_task(self._watch(dialect.ping, receive, send))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(watching)
            await _end(sending)
            await self._close()
        if not sending.cancelled():
            sending.result()

    async def _send_frames(self, frames: AsyncGenerator[bytes, None], send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(frames):
            async for data in frames:
                if not data:
                    continue
                self._sent += 1
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self, ping: bytes, receive: Receive, send: Send) -> None:
        """Returns when the client has gone; pings it while nothing else is sent."""
        while True:
            sent = self._sent
            try:
                message = await asyncio.wait_for(receive(), PING_INTERVAL)
            except TimeoutError:
                if sent == self._sent:
                    await send({"type": "http.response.body", "body": ping, "more_body": True})
                continue
            if message["type"] == "http.disconnect":
                return


async def _with_end(
    frames: AsyncGenerator[bytes, None], dialect: Dialect, request_id: str
) -> AsyncGenerator[bytes, None]:
    """Adds the end of the stream; an exception in the middle becomes an error frame before it."""
    async with contextlib.aclosing(frames):
        try:
            async for data in frames:
                yield data
        except ApiError as error:
            yield dialect.error_frame(error, request_id)
        except CupolaError as error:
            yield dialect.error_frame(api_error(error), request_id)
        except Exception:
            _LOG.exception("a stream failed")
            bug = ApiError(500, "The server failed while it streamed.", code="internal_error")
            yield dialect.error_frame(bug, request_id)
    yield dialect.done


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits until its clean-up is done."""
    task.cancel()
    await asyncio.wait((task,))
