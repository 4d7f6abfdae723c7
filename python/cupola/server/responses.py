"""Errors as HTTP responses: the one place where an ApiError gets a status line."""

from __future__ import annotations

from starlette.responses import Response

from cupola.protocol.errors import ApiError


def json_response(payload: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response whose JSON is already written."""
    return Response(payload, status, headers=headers, media_type="application/json")


def error_response(error: ApiError) -> Response:
    """The OpenAI-shaped body with the status and the headers of the error."""
    return json_response(error.to_json(), status=error.status, headers=error.headers)
