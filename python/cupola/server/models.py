"""`/v1/models` and `/v1/models/{id}`."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.models import ModelCard, ModelList
from cupola.server.json_response import json_response
from cupola.server.services import Services
from cupola.server.slot import ModelSlot


async def list_models(services: Services, _request: Request) -> Response:
    """Every name under which a model answers, and whether it is loaded."""
    cards = tuple(_card(name, services.shelf.find(name)) for name in services.shelf.names)
    return json_response(ModelList(data=cards, first_id=cards[0].id, last_id=cards[-1].id).model_dump_json().encode())


async def get_model(services: Services, request: Request) -> Response:
    """One of them; 404 for any other name."""
    name: str = request.path_params["model"]
    return json_response(_card(name, services.shelf.find(name)).model_dump_json().encode())


def _card(name: str, slot: ModelSlot) -> ModelCard:
    return ModelCard(
        id=name,
        created=slot.created,
        max_model_len=slot.max_model_len,
        capabilities=slot.capabilities,
        state=slot.state,
        display_name=name,
        created_at=datetime.fromtimestamp(slot.created, UTC),
        max_input_tokens=slot.max_model_len,
        max_tokens=slot.max_model_len,
    )
