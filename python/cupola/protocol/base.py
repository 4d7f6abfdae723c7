"""The base of every request model: strict about names, tolerant about what changes nothing.

A field that a model does not declare is one of three kinds:

    ignored   it cannot change the answer (`user`, `metadata`, ...): accepted and dropped
    neutral   it could change the answer, but this value means "off" (`logprobs: false`): accepted and dropped
    other     refused by name, with a hint where the class has one

Nothing is dropped silently: both lists are data of the model's class, and documented there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, JsonValue, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

UNION_TAG = "~"
"""Begins the tags of unions that a function tells apart: a tag is no part of a field's path in an error message."""


class WireModel(BaseModel):
    """A frozen value that came off the wire; undeclared fields are refused unless a list below names them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    IGNORED: ClassVar[frozenset[str]] = frozenset()
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {}
    HINTS: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_what_changes_nothing(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        undeclared = data.keys() - cls.model_fields.keys()
        dropped = {name for name in undeclared if cls._changes_nothing(name, data[name])}
        for name in sorted(undeclared & cls.HINTS.keys() - dropped):
            text = f"it is not supported; {cls.HINTS[name]}"
            raise PydanticCustomError("unsupported_content", "{text}", {"text": text, "param": name})
        return {name: value for name, value in data.items() if name not in dropped} if dropped else data

    @classmethod
    def _changes_nothing(cls, name: str, value: object) -> bool:
        if name in cls.IGNORED:
            return True
        if name not in cls.NEUTRAL:
            return False
        # `0 == False` in Python: a neutral value counts only with its own type, but 0.0 is as good as 0.
        return value is None or any(
            value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in cls.NEUTRAL[name]
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).setdefault("properties", {})
        for name in sorted(cls.IGNORED):
            properties.setdefault(name, {"description": "Accepted and ignored."})
        for name, values in sorted(cls.NEUTRAL.items()):
            properties.setdefault(name, {"description": "Only what changes nothing.", "enum": [None, *values]})
        return schema
