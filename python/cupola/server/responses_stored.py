"""What can be done with a response that exists: `/v1/responses/{id}`, its input items, its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.base import WireModel
from cupola.protocol.errors import ApiError, validation_error
from cupola.protocol.responses_items import Item
from cupola.protocol.responses_object import DeletedResponse, ItemList
from cupola.server.auth import owner_of
from cupola.server.json_response import json_response
from cupola.server.responses_store import StoredResponse
from cupola.server.services import Services

_CANCEL_SECONDS = 5.0  # how long a cancelled response may take to be over; a step, and a slow reader


class ItemPage(WireModel):
    """Which of a list's items are wanted."""

    after: str | None = None
    limit: int = Field(default=20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"


async def get_response(services: Services, request: Request) -> Response:
    """A response that was kept, or that is being streamed."""
    if request.query_params.get("stream", "false").lower() not in ("", "0", "false"):
        message = "`stream`: a response can be streamed only while it is created; without `stream` it is given whole."
        raise ApiError(400, message, code="unsupported_parameter", param="stream")
    owner, response_id = owner_of(request.scope), request.path_params["response_id"]
    entry = services.responses.find(owner, response_id)
    if entry is not None:
        return json_response(entry.payload)
    running = services.running_responses.find(owner, response_id)
    if running is None:
        raise _not_found(response_id)
    return json_response(running.frames.response.model_dump_json().encode())


async def delete_response(services: Services, request: Request) -> Response:
    """Forgets a response; those that went on from it keep what they need."""
    response_id = request.path_params["response_id"]
    if not services.responses.delete(owner_of(request.scope), response_id):
        raise _not_found(response_id)
    return json_response(DeletedResponse(id=response_id).model_dump_json().encode())


async def cancel_response(services: Services, request: Request) -> Response:
    """Ends a response that is being streamed, and gives what there is of it."""
    owner, response_id = owner_of(request.scope), request.path_params["response_id"]
    running = services.running_responses.find(owner, response_id)
    if running is not None:
        running.run.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running.run.over(), _CANCEL_SECONDS)
        return json_response(running.frames.response.model_dump_json().encode())
    entry = services.responses.find(owner, response_id)
    if entry is None:
        raise _not_found(response_id)
    if entry.status != "cancelled":
        raise ApiError(400, "A response that has ended cannot be cancelled.", code="response_ended")
    return json_response(entry.payload)


async def list_input_items(services: Services, request: Request) -> Response:
    """What a response answered, page by page: everything that was said before it."""
    try:
        page = ItemPage.model_validate({k: v for k, v in request.query_params.items() if k not in _HARMLESS})
    except ValidationError as error:
        raise validation_error(error) from error
    response_id = request.path_params["response_id"]
    entry = services.responses.find(owner_of(request.scope), response_id)
    if entry is None:
        raise _not_found(response_id)
    return json_response(_page(entry, page).model_dump_json().encode())


_HARMLESS = frozenset({"include", "include[]"})


def _page(entry: StoredResponse, page: ItemPage) -> ItemList:
    items: tuple[Item, ...] = entry.history
    if page.order == "desc":
        items = items[::-1]
    ids = [item.id for item in items]
    if page.after is not None and page.after not in ids:
        raise ApiError(404, f"Item with id `{page.after}` not found.", code="item_not_found", param="after")
    first = 0 if page.after is None else ids.index(page.after) + 1
    found = items[first : first + page.limit]
    return ItemList(
        data=found,
        first_id=found[0].id if found else None,
        last_id=found[-1].id if found else None,
        has_more=first + page.limit < len(items),
    )


def _not_found(response_id: str) -> ApiError:
    message = f"Response with id `{response_id[:80]}` not found."
    return ApiError(404, message, code="response_not_found", param="response_id")
