"""The error body of the OpenAI API, and the one mapping from exceptions to status codes.

    400  invalid_request_error   the request is malformed, unsupported, or does not fit the model
    401  authentication_error    no valid API key
    404  invalid_request_error   unknown path or model
    405  invalid_request_error   known path, other method
    413  invalid_request_error   body too large
    431  invalid_request_error   head too large
    429  rate_limit_error        the queue is full (Retry-After)
    500  server_error            the engine failed, or a bug
    503  server_error            the server drains, or its engine is gone (Retry-After)
    504  server_error            the request was not done within its `timeout`

A message is made of whole sentences; `param` names the field, `code` is for programs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cupola.errors import ContextLengthError, CupolaError, DeadlineError, OverloadedError, RequestError
from cupola.protocol.base import UNION_TAG
from cupola.protocol.generation import ResponseModel

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_MAX_ECHO = 80  # characters of a refused value that an error message repeats


class ErrorDetail(ResponseModel):
    """What went wrong: a sentence, a class, the field, and a word that programs can compare."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(ResponseModel):
    """The body of every response that is not a success."""

    error: ErrorDetail


class ApiError(Exception):
    """An error on its way to a client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def to_json(self) -> bytes:
        """The OpenAI-shaped body."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        detail = ErrorDetail(message=self.message, type=kind, param=self.param, code=self.code)
        return ErrorBody(error=detail).model_dump_json().encode()


def model_not_found(model: str, served: Sequence[str]) -> ApiError:
    """404 for a model name that nobody serves here."""
    names = ", ".join(f"`{name}`" for name in served)
    message = f"The model `{model[:_MAX_ECHO]}` does not exist; this server has {names}."
    return ApiError(404, message, code="model_not_found", param="model")


def unavailable(message: str, code: str, retry_after: float = 1.0) -> ApiError:
    """503 that tells the client to come back, or to go elsewhere."""
    return ApiError(503, message, code=code, headers=_retry_after(retry_after))


def api_error(error: CupolaError) -> ApiError:
    """The status, code and text for one of Cupola's own exceptions."""
    sentences = [error.message] if error.hint is None else [error.message, f"Hint: {error.hint}"]
    message = " ".join(f"{sentence[:1].upper()}{sentence[1:].removesuffix('.')}." for sentence in sentences)
    if isinstance(error, RequestError):
        default = "context_length_exceeded" if isinstance(error, ContextLengthError) else "invalid_value"
        return ApiError(400, message, code=error.code or default, param=error.param)
    if isinstance(error, OverloadedError):
        return ApiError(429, message, code="queue_full", headers=_retry_after(error.retry_after))
    if isinstance(error, DeadlineError):
        return ApiError(504, message, code="timeout", param="timeout")
    return ApiError(500, message, code="engine_error")


def validation_error(error: ValidationError) -> ApiError:
    """400 for the first thing that pydantic found wrong with a body."""
    return detail_error(error.errors(include_url=False)[0])


def detail_error(detail: ErrorDetails) -> ApiError:
    """400 for one finding of pydantic: names the field, says what is allowed and what was given."""
    param = _param(detail)
    subject = f"`{param}`" if param else "The request body"
    kind = detail["type"]
    if kind == "extra_forbidden":
        return ApiError(400, f"{subject} is not supported by this server.", code="unsupported_parameter", param=param)
    if kind == "missing":
        return ApiError(400, f"{subject} is required.", code="missing_required_parameter", param=param)
    reason = (detail["msg"][:1].lower() + detail["msg"][1:]).replace("tuple", "list").replace("array", "list")
    if kind == "json_invalid":
        return ApiError(
            400, f"The request body is not valid JSON ({reason.removeprefix('invalid JSON: ')}).", code="invalid_json"
        )
    if kind == "unsupported_content":
        return ApiError(400, f"{subject}: {reason}.", code="unsupported_parameter", param=param)
    reason = reason.removeprefix(f"{subject} ")
    code = "invalid_type" if kind.endswith(("_type", "_parsing")) else "invalid_value"
    return ApiError(400, f"{subject}: {reason}{_given(detail)}.", code=code, param=param)


def _param(detail: ErrorDetails) -> str | None:
    """The field in the notation of the OpenAI API, `messages.0.content`; a check across fields names its own."""
    named = detail.get("ctx", {}).get("param")
    if isinstance(named, str):
        return named
    path = (str(part) for part in detail["loc"])
    return ".".join(part for part in path if not part.startswith(UNION_TAG)) or None


def _given(detail: ErrorDetails) -> str:
    """What was given, where it is short enough to be of use."""
    value = detail.get("input")
    if value is None or not isinstance(value, str | int | float):
        return ""
    text = repr(value)
    return f", got {text}" if len(text) <= _MAX_ECHO else ""


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
