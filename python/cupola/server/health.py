"""`/health`: does the process work? `/ready`: shall it get requests? Two questions, asked by different machines."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.errors import unavailable
from cupola.server.json_response import error_response, json_response
from cupola.server.services import Services


async def health(services: Services, _request: Request) -> Response:
    """200 while the engine thread gives signs of life; 503 once it has failed or hangs."""
    fault = services.shelf.fault()
    if fault is not None:
        return error_response(unavailable(fault, "engine_failed"))
    return json_response(b'{"status":"ok"}')


async def ready(services: Services, _request: Request) -> Response:
    """200 while new requests are welcome; 503 from the first moment of a drain."""
    if services.lifecycle.draining:
        return error_response(unavailable("The server is shutting down.", "draining"))
    fault = services.shelf.fault()
    if fault is not None:
        return error_response(unavailable(fault, "engine_failed"))
    return json_response(b'{"status":"ready"}')
