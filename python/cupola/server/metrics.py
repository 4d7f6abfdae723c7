"""`/metrics`: the server's numbers in Prometheus text, or in OpenMetrics where the client prefers that."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cupola.server.services import Services


async def metrics(services: Services, request: Request) -> Response:
    """What Prometheus scrapes."""
    content, media_type = services.telemetry.render(request.headers.get("accept", ""))
    return Response(content, headers={"content-type": media_type})
