"""API keys: every path needs one, but those that hold no secret and do no work."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from cupola.protocol.errors import ApiError
from cupola.server.responses import error_response


class BearerAuth:
    """ASGI middleware: `Authorization: Bearer KEY`, or `x-api-key: KEY` as Anthropic's clients may send it.

    Keys are compared in constant time. `open_paths` need none.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], open_paths: frozenset[str]) -> None:
        self._app = app
        self._keys = tuple(key.encode() for key in keys)
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._allows(scope):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "A valid API key is needed, as the header `Authorization: Bearer KEY`.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error_response(error)(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        key = _given_key(scope)
        # Every key is compared, so that the time says nothing about which one came close.
        matches = [hmac.compare_digest(key, known) for known in self._keys]
        return any(matches)


def owner_of(scope: Scope) -> str:
    """Who asks, as far as the server can tell: a digest of the key that came with the request, whatever it opens."""
    return hashlib.sha256(_given_key(scope)).hexdigest()


def _given_key(scope: Scope) -> bytes:
    headers = {name: value for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")}
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    return (bearer if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")).strip()
