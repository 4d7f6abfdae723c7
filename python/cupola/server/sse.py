"""Server-sent events: bytes of frames, and the response that sends them. Knows no endpoint.

A stream ends in one of three ways: `data: [DONE]`; an error frame and then `data: [DONE]`; or the client goes away,
and the generator of frames is closed at once, wherever it waits.
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

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
PING_INTERVAL = 15.0  # seconds of silence after which proxies and clients get a sign of life

_LOG = logging.getLogger("cupola.server")


def frame(payload: bytes) -> bytes:
    """One event; JSON holds no raw line break, so one `data:` line is enough."""
    return b"data: " + payload + b"\n\n"


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

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_frames(send))
        watching = asyncio.create_task(self._watch(receive, send))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(watching)
            await _end(sending)
            await self._close()
        if not sending.cancelled():
            sending.result()

    async def _send_frames(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(_with_error_frame(self._frames)) as frames:
            async for data in frames:
                if not data:
                    continue
                self._sent += 1
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self, receive: Receive, send: Send) -> None:
        """Returns when the client has gone; pings it while nothing else is sent."""
        while True:
            sent = self._sent
            try:
                message = await asyncio.wait_for(receive(), PING_INTERVAL)
            except TimeoutError:
                if sent == self._sent:
                    await send({"type": "http.response.body", "body": PING, "more_body": True})
                continue
            if message["type"] == "http.disconnect":
                return


async def _with_error_frame(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Turns an exception in the middle of a stream into its last frames."""
    async with contextlib.aclosing(frames):
        try:
            async for data in frames:
                yield data
        except ApiError as error:
            yield frame(error.to_json())
        except CupolaError as error:
            yield frame(api_error(error).to_json())
        except Exception:
            _LOG.exception("a stream failed")
            yield frame(ApiError(500, "The server failed while it streamed.", code="internal_error").to_json())
    yield DONE


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits until its clean-up is done."""
    task.cancel()
    await asyncio.wait((task,))
