"""The error body of the Anthropic API. Which status an error has is decided in `protocol/errors.py`.

400, 405  invalid_request_error
401       authentication_error
404       not_found_error
413       request_too_large
429       rate_limit_error
500       api_error
503       overloaded_error
504       timeout_error
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cupola.protocol.errors import ApiError
from cupola.protocol.generation import ResponseModel, not_given

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class AnthropicErrorDetails(ResponseModel):
    """What programs can compare: the same `code` and `param` as in the OpenAI API."""

    error_code: str
    param: str | None = Field(None, exclude_if=not_given)


class AnthropicErrorObject(ResponseModel):
    """What went wrong."""

    type: str
    message: str
    details: AnthropicErrorDetails | None = Field(None, exclude_if=not_given)


class AnthropicErrorBody(ResponseModel):
    """The body of every response under `/v1/messages` that is not a success."""

    type: Literal["error"] = "error"
    error: AnthropicErrorObject
    request_id: str


def anthropic_error(error: ApiError, request_id: str) -> bytes:
    """The body for an error."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    details = None if error.code is None else AnthropicErrorDetails(error_code=error.code, param=error.param)
    found = AnthropicErrorObject(type=kind, message=error.message, details=details)
    return AnthropicErrorBody(error=found, request_id=request_id).model_dump_json().encode()
