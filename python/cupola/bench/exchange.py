"""One HTTP request on a connection of its own, its answer with the time at which each part of it came.

The client shares the machine with the server that it measures, and a general HTTP client would take several percent of
a small machine from it. So nothing is parsed while an answer streams: once its head says that it comes in chunks, what
arrives is only kept, with its time, and httptools reads it at the end.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from cupola.errors import EngineError, UsageError

_HINT = "Is the server running, and is this its address?"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, out of a URL."""

    url: str
    host: str
    port: int
    tls: bool
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `http://host:port[/v1]`.

        Raises:
            UsageError: not such a URL.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"`{url}` is not a URL: {error}", hint="Write http://127.0.0.1:8000.") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"`{url}` is not the URL of a server", hint="Write http://127.0.0.1:8000.")
        tls = parts.scheme == "https"
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(url, parts.hostname, port or (443 if tls else 80), tls, path)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: its status, and its body in the parts in which it came, each with its time."""

    start: float
    status: int
    parts: tuple[tuple[float, bytes], ...]

    @property
    def body(self) -> bytes:
        """All parts together."""
        return b"".join(part for _, part in self.parts)


_LAST_CHUNK = b"0\r\n\r\n"


class _Exchange(asyncio.Protocol):
    """asyncio's and httptools' callbacks for one request."""

    def __init__(self, request: bytes, done: asyncio.Future[None]) -> None:
        self.parts: list[tuple[float, bytes]] = []
        self.status = 0
        self._request = request
        self._done = done
        self._now = 0.0
        self._chunked = False
        self._kept: list[tuple[float, bytes]] = []  # arrived, and not parsed yet
        self._parser = httptools.HttpResponseParser(self)
        self._ends_with_connection = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an instance of asyncio.Transport in uvloop, which has the same methods.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._kept.append((time.perf_counter(), data))
        # The end may itself arrive in pieces; a piece that only looks like it costs no more than parsing early.
        if not self._chunked or len(data) < len(_LAST_CHUNK) or data.endswith(_LAST_CHUNK):
            self._parse()

    def _parse(self) -> None:
        kept, self._kept = self._kept, []
        try:
            for self._now, data in kept:
                self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(EngineError(f"The server does not speak HTTP: {error}", hint=_HINT))

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False
        self._chunked = self._chunked or (name == b"transfer-encoding" and value.lower() == b"chunked")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.parts.append((self._now, body))

    def on_message_complete(self) -> None:
        self._end(None)

    def connection_lost(self, cause: Exception | None) -> None:
        self._parse()
        if self.status and self._ends_with_connection and cause is None:
            self._end(None)
        else:
            self._end(EngineError("The server closed the connection in the middle of an answer", hint="See its log."))

    def _end(self, error: EngineError | None) -> None:
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)
        if self._transport is not None:
            self._transport.close()


async def exchange(address: Address, head: bytes, body: bytes, seconds: float) -> Answer:
    """Send a request, read the whole answer.

    Args:
        head: request line and headers, each ended by CRLF, without `Host`, `Connection` and `Content-Length`.
        seconds: time limit.

    Raises:
        EngineError: there is no server, it does not speak HTTP, it went away, or it took too long.
    """
    end = f"Host: {address.host}:{address.port}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    secure = ssl.create_default_context() if address.tls else None
    start = time.perf_counter()
    try:
        async with asyncio.timeout(seconds):
            transport, protocol = await loop.create_connection(
                lambda: _Exchange(head + end.encode() + body, done), address.host, address.port, ssl=secure
            )
            try:
                await done
            finally:
                transport.close()
    except TimeoutError as error:
        raise EngineError(f"{address.url} did not answer within {seconds:g} s") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EngineError(f"{address.url} cannot be reached: {reason}", hint=_HINT) from error
    except EngineError as error:
        raise EngineError(f"{address.url}: {error.message}", hint=error.hint) from error
    return Answer(start, protocol.status, tuple(protocol.parts))
