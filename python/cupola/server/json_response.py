"""JSON as a response, and errors as responses: the one place where an ApiError gets a status line."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cupola.protocol.errors import ApiError
from cupola.server.dialect import dialect_of
from cupola.server.record import record_of


def json_response(payload: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response whose JSON is already written."""
    return Response(payload, status, headers=headers, media_type="application/json")


def error_response(error: ApiError) -> Response:
    """The status and the headers of the error, and a body in the shape of the API that the request speaks."""
    return _ErrorResponse(error)


class _ErrorResponse(Response):
    """Whoever refuses a request need not know its API: the body is written when the response is sent."""

    media_type = "application/json"

    def __init__(self, error: ApiError) -> None:
        self._error = error
        super().__init__(b"", error.status, headers=error.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        record.error_code = self._error.code
        body = dialect_of(scope["path"]).error(self._error, record.id)
        await json_response(body, status=self.status_code, headers=self._error.headers)(scope, receive, send)
