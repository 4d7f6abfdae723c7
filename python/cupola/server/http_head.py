"""The head of an HTTP request, bounded before any of it is believed. Knows uvicorn's protocol; everything behind it
knows ASGI only.
"""

from __future__ import annotations

import uuid

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cupola.protocol.errors import ApiError
from cupola.server.dialect import dialect_of

MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 1024  # the URL and all headers


class _TooLargeError(Exception):
    """The parser passes it on as an error of its own."""


class BoundedProtocol(HttpToolsProtocol):
    """431 for too many or too large headers, however they arrive; 400 for what is not HTTP. Both in the API's shape."""

    _head_bytes = 0  # of what the parser has reported
    _received = 0  # whatever arrived while the head was incomplete
    _headers_seen = 0
    _in_head = True
    _too_large = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The parser reports a header when it is complete; one that never ends is seen here.
        if self._in_head and not self._too_large:
            self._received += len(data)
            if self._received > 2 * MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = self._received = self._headers_seen = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers_seen += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._too_large:
            self._refuse_head()
        else:
            self._refuse(ApiError(400, msg, code="invalid_http"))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES or self._headers_seen > MAX_HEADERS:
            self._too_large = True
            raise _TooLargeError

    def _refuse_head(self) -> None:
        self._too_large = True
        limits = f"{MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes, the URL among them"
        self._refuse(ApiError(431, f"The head of the request is larger than {limits}.", code="headers_too_large"))

    def _refuse(self, error: ApiError) -> None:
        request_id = f"req-{uuid.uuid4().hex}"
        path = getattr(self, "url", b"").partition(b"?")[0].decode("latin-1")
        body = dialect_of(path).error(error, request_id)
        head = (
            STATUS_LINE[error.status],
            b"content-type: application/json\r\n",
            b"content-length: %d\r\n" % len(body),
            b"x-request-id: %b\r\n" % request_id.encode(),
            b"connection: close\r\n\r\n",
        )
        self.transport.write(b"".join(head) + body)
        self.transport.close()
