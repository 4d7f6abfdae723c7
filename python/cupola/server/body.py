"""From the bytes of a request to a value of its model. The JSON parser bounds nesting, numbers and Unicode itself."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from cupola.protocol.errors import ApiError, validation_error

Body = TypeVar("Body", bound=BaseModel)


async def parse_body(request: Request, model: type[Body]) -> Body:
    """Reads and checks the body.

    Raises:
        ApiError: 400, naming the field; or 413.
    """
    # A web page elsewhere can send text/plain here without asking the browser, but not JSON.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(400, "The request needs the header `Content-Type: application/json`.", code="invalid_json")
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise validation_error(error) from error
