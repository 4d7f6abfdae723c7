"""`/metrics`: the server's numbers in Prometheus text."""

from __future__ import annotations

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from cupola.server.services import Services


async def metrics(services: Services, _request: Request) -> Response:
    """What Prometheus scrapes."""
    return Response(services.telemetry.render(), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
