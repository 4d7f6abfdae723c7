"""What the OpenAPI document says of an operation: handlers read requests themselves, so FastAPI cannot see it.

Bodies, parameters, event streams, errors in the shape of the path's API, and keys. Knows no endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REFERENCE = "#/components/schemas/{model}"
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def operation(
    path: str,
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    *,
    is_text: bool = False,
    is_open: bool = False,
) -> dict[str, Any]:
    """What is added to the entry of an operation.

    Args:
        path: with its parameters in braces.
        body: of the request. One with a field `stream` may be answered by an event stream.
        query: the parameters behind the question mark, as one model.
        is_text: the answer is plain text.
        is_open: no key is needed.
    """
    entry: dict[str, Any] = {}
    parameters = [_parameter("path", name, {"type": "string"}) for name in re.findall(r"{(\w+)", path)]
    if query is not None:
        parameters += [_parameter("query", *field) for field in query.model_json_schema()["properties"].items()]
    if parameters:
        entry["parameters"] = parameters
    if body is not None:
        schema = {"$ref": _REFERENCE.format(model=body.__name__)}
        entry["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        if "stream" in body.model_fields:
            entry["responses"] = _text_answer("text/event-stream")
    if is_text:
        entry["responses"] = _text_answer("text/plain")
    if is_open:
        entry["security"] = []
    return entry


def complete(app: FastAPI, bodies: Sequence[type[BaseModel]], *, with_keys: bool) -> None:
    """Makes the application's document contain the schemas of these bodies, and of keys where they are needed."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, definitions = models_json_schema([(model, "validation") for model in bodies], ref_template=_REFERENCE)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(definitions["$defs"])
        if with_keys:
            components["securitySchemes"] = _KEYS
            document["security"] = [{name: []} for name in _KEYS]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _text_answer(media_type: str) -> dict[str, object]:
    return {"200": {"content": {media_type: {"schema": {"type": "string"}}}}}


def _parameter(place: str, name: str, schema: Mapping[str, object]) -> dict[str, object]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}
