"""Whether a client is still there, and work that ends when it is not. Knows ASGI's disconnect message, no endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

Result = TypeVar("Result")


async def until_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Runs `work`; when the client goes away first, cancels it and raises ClientDisconnect.

    The body of the request has to be read already: what arrives after it can only be the end of the connection.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (watching, working):
            task.cancel()
        await asyncio.wait((watching, working))
    if working.cancelled():
        raise ClientDisconnect
    return working.result()


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone. The body of the request has to be read already."""
    while (await receive())["type"] != "http.disconnect":
        pass
