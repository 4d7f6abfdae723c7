"""`/v1/models` and `/v1/models/{id}`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.models import ModelCard, ModelList
from cupola.server.responses import json_response
from cupola.server.services import Services


async def list_models(services: Services, _request: Request) -> Response:
    """Every name under which the model answers, the served name first."""
    cards = tuple(_card(services, name) for name in services.model.names)
    return json_response(ModelList(data=cards).model_dump_json().encode())


async def get_model(services: Services, request: Request) -> Response:
    """One of them; 404 for any other name."""
    name: str = request.path_params["model"]
    services.model.check_name(name)
    return json_response(_card(services, name).model_dump_json().encode())


def _card(services: Services, name: str) -> ModelCard:
    return ModelCard(id=name, created=services.model.created, max_model_len=services.model.engine.config.max_context)
