"""The size of a request body: refused by its announced length, or while it is read."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cupola.protocol.errors import ApiError
from cupola.server.json_response import error_response


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `limit` bytes, without reading the rest of it."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > self._limit:
            await error_response(self._too_large())(scope, receive, send)
            return
        seen = 0

        async def receive_within_limit() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise self._too_large()
            return message

        await self._app(scope, receive_within_limit, send)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"The request body is larger than the {self._limit} bytes that this server takes.",
            code="request_too_large",
            headers={"Connection": "close"},
        )
