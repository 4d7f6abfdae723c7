"""API keys: every path needs one, but those that hold no secret and do no work."""

from __future__ import annotations

import hashlib

from starlette.types import ASGIApp, Receive, Scope, Send

from cupola.protocol.errors import ApiError
from cupola.server.json_response import error_response
from cupola.server.keys import KeyRing


class BearerAuth:
    """ASGI middleware: `Authorization: Bearer KEY`, or `x-api-key: KEY` as Anthropic's clients may send it.

    `open_paths` need none.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, open_paths: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope["type"] != "http" or scope["path"] in self._open_paths
        if is_open or self._keys.opens(_given_key(scope)):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "A valid API key is needed, as the header `Authorization: Bearer KEY`.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error_response(error)(scope, receive, send)


def owner_of(scope: Scope) -> str:
    """Who asks, as far as the server can tell: a digest of the key that came with the request, whatever it opens."""
    return hashlib.sha256(_given_key(scope)).hexdigest()


def _given_key(scope: Scope) -> bytes:
    headers = {name: value for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")}
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    return (bearer if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")).strip()
