"""Values of arguments in the syntaxes that are not JSON: Python's literals, plain text, and objects with bare keys."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from contextlib import suppress

_MOST_NESTED = 64
_JSON_TYPES: dict[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null",
}  # fmt: skip


class Malformed(Exception):  # noqa: N818 (no error of anybody's: a model's text that looks like a call and is none)
    """The text is not a call."""


def strict_json(text: str) -> object:
    """Parsed JSON. ValueError: it is none; `NaN` and its like count as none."""
    try:
        value: object = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def python_value(text: str) -> object:
    """A Python literal; JSON's words and strings count too, since models mix them."""
    with suppress(ValueError):
        return strict_json(text)
    try:
        value: object = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise Malformed("an argument is no literal") from None
    return value


def parameter_value(text: str, key: str, schema: Mapping[str, object]) -> object:
    """A value that stands in the reply as plain text: what it is, its schema says.

    A string is the text itself; anything else is JSON, and if it is not, the text. One line break at either end belongs
    to the layout.
    """
    text = text.removeprefix("\n").removesuffix("\n")
    allowed = parameter_types(key, schema)
    if allowed == {"string"}:
        return text
    try:
        value = strict_json(text)
    except ValueError:
        return text
    kind = _JSON_TYPES[type(value)]
    if "string" in allowed and kind not in allowed and not (kind == "integer" and "number" in allowed):
        return text
    return value


def parameter_types(key: str, schema: Mapping[str, object]) -> set[str]:
    """The JSON types that an argument may have; empty where its schema does not tell."""
    properties = schema.get("properties")
    entry = properties.get(key) if isinstance(properties, Mapping) else None
    return schema_types(entry)


def schema_types(schema: object) -> set[str]:
    """The JSON types that a schema names; empty where it does not tell."""
    if not isinstance(schema, Mapping):
        return set()
    types = schema.get("type")
    if isinstance(types, str):
        return {types}
    if isinstance(types, list):
        return {kind for kind in types if isinstance(kind, str)}
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        return {_JSON_TYPES[type(value)] for value in values}
    options = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(options, list):
        found = [schema_types(option) for option in options]
        return set().union(*found) if all(found) else set()
    return set()


_BARE = re.compile(r"[^,:{}\[\]]+")


def keyed_object(text: str, mark: str) -> dict[str, object]:
    """`{key:value,...}` with bare keys, and strings between two marks. Malformed: it is not one."""
    value, at = _keyed_value(text.strip(), 0, mark, 0)
    if not isinstance(value, dict) or text.strip()[at:]:
        raise Malformed("the arguments are no object")
    return value


def _keyed_value(text: str, at: int, mark: str, depth: int) -> tuple[object, int]:
    if depth > _MOST_NESTED:
        raise Malformed("the arguments nest too deep")
    if text.startswith(mark, at):
        end = text.find(mark, at + len(mark))
        if end < 0:
            raise Malformed("a string does not end")
        return text[at + len(mark) : end], end + len(mark)
    if text.startswith("{", at):
        return _keyed_members(text, at + 1, mark, depth)
    if text.startswith("[", at):
        return _keyed_items(text, at + 1, mark, depth)
    match = _BARE.match(text, at)
    if match is None:
        raise Malformed("a value is missing")
    try:
        return strict_json(match.group()), match.end()
    except ValueError:
        return match.group().strip(), match.end()


def _keyed_members(text: str, at: int, mark: str, depth: int) -> tuple[dict[str, object], int]:
    members: dict[str, object] = {}
    while not text.startswith("}", at):
        if text.startswith(mark, at):
            key, at = _keyed_value(text, at, mark, depth)
        else:
            end = text.find(":", at)
            key, at = text[at:end].strip(), end
        if at < 0 or not text.startswith(":", at):
            raise Malformed("a key has no value")
        members[str(key)], at = _keyed_value(text, at + 1, mark, depth + 1)
        at = _after_comma(text, at, "}")
    return members, at + 1


def _keyed_items(text: str, at: int, mark: str, depth: int) -> tuple[list[object], int]:
    items: list[object] = []
    while not text.startswith("]", at):
        item, at = _keyed_value(text, at, mark, depth + 1)
        items.append(item)
        at = _after_comma(text, at, "]")
    return items, at + 1


def _after_comma(text: str, at: int, close: str) -> int:
    if text.startswith(",", at):
        return at + 1
    if text.startswith(close, at):
        return at
    raise Malformed("a bracket does not close")
