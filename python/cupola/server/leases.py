"""What a request holds until its response is sent, whole or as a stream, or its client has gone."""

from __future__ import annotations

import contextlib
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

_KEY = "cupola.leases"
Held = TypeVar("Held")


class LeaseKeeper:
    """ASGI middleware: lets go of everything that was kept for a request, at its very end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.ExitStack() as leases:
            scope[_KEY] = leases
            await self._app(scope, receive, send)


def keep(scope: Scope, lease: contextlib.AbstractContextManager[Held]) -> Held:
    """Enters a context for as long as the request of this scope lasts."""
    leases = scope[_KEY]
    assert isinstance(leases, contextlib.ExitStack)
    return leases.enter_context(lease)
