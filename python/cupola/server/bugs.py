"""What happens when the server's own code fails: a traceback in the log, and a response that tells no secrets."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cupola.protocol.errors import ApiError
from cupola.server.json_response import error_response
from cupola.server.record import record_of

_LOG = logging.getLogger("cupola.server")


class BugGuard:
    """ASGI middleware: 500 for any exception that nobody expected, where no response has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            _LOG.exception("a bug: %s %s failed", scope["method"], ascii(scope["path"]))
            if begun:
                raise  # the connection has to end, or the client would take what it has for everything
            message = f"The server failed; its log says more about request {record_of(scope).id}."
            await error_response(ApiError(500, message, code="internal_error"))(scope, receive, send)
