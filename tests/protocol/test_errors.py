"""The mapping from exceptions to status codes, and the body of an error."""

from __future__ import annotations

import json

import pytest

from cupola.errors import (
    ContextLengthError,
    CupolaError,
    EngineError,
    OverloadedError,
    RequestError,
)
from cupola.protocol.errors import ApiError, api_error, model_not_found, unavailable


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (RequestError("No", param="top_p"), 400, "invalid_request_error", "invalid_value"),
        (RequestError("No", code="special"), 400, "invalid_request_error", "special"),
        (ContextLengthError("Too long", param="prompt"), 400, "invalid_request_error", "context_length_exceeded"),
        (OverloadedError("Full", retry_after=2.5), 429, "rate_limit_error", "queue_full"),
        (EngineError("Broken"), 500, "server_error", "engine_error"),
        (CupolaError("Odd"), 500, "server_error", "engine_error"),
    ],
)
def test_status_and_type(error: CupolaError, status: int, kind: str, code: str) -> None:
    answer = api_error(error)
    body = json.loads(answer.to_json())["error"]
    assert (answer.status, body["type"], body["code"]) == (status, kind, code)
    assert body["message"] == f"{error.message}."
    assert set(body) == {"message", "type", "param", "code"}


def test_a_full_queue_says_when_to_come_back() -> None:
    assert api_error(OverloadedError("Full", retry_after=2.5)).headers == {"Retry-After": "3"}
    assert unavailable("Gone", "draining", 0.1).headers == {"Retry-After": "1"}


def test_hints_become_a_sentence() -> None:
    assert api_error(RequestError("the prompt is long", hint="shorten it")).message == (
        "The prompt is long. Hint: shorten it."
    )


def test_an_unknown_model_is_not_found() -> None:
    error = model_not_found("gpt-9" * 100, ["smollm2", "alias"])
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "`smollm2`, `alias`" in error.message
    assert len(error.message) < 200


def test_types_follow_the_status() -> None:
    kinds = {status: json.loads(ApiError(status, "x").to_json())["error"]["type"] for status in (401, 404, 413, 503)}
    assert kinds == {
        401: "authentication_error",
        404: "invalid_request_error",
        413: "invalid_request_error",
        503: "server_error",
    }
