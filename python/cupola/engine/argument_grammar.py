"""The grammar of one tool's arguments, in each of the syntaxes in which models write them.

As JSON they follow their schema in all that llguidance knows. The other syntaxes take an object's properties one by
one, in the schema's order; what of a schema they cannot keep to is refused for a strict tool, and left out for another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from cupola.engine.grammar import JSON_LAYOUT
from cupola.engine.lark import LarkWriter
from cupola.errors import RequestError
from cupola.protocol.conversation import Tool
from cupola.text.argument_values import schema_types
from cupola.text.reply_format import CallFormat

_DEFINITIONS = ("$defs", "definitions")
_COMBINED = ("anyOf", "oneOf", "allOf", "$ref", "not", "if", "patternProperties", "minProperties", "dependentRequired")
_OF_STRINGS = ("pattern", "format", "minLength", "maxLength")
_MOST_NESTED = 16


class ArgumentGrammar:
    """Writes what stands between the brackets of a call.

    Args:
        lark: takes the rules.
        form: the model's format.
        tool: whose arguments.
    """

    def __init__(self, lark: LarkWriter, form: CallFormat, tool: Tool) -> None:
        self._lark = lark
        self._form = form
        self._tool = tool
        self._schema = _closed(tool.parameters)

    def json(self) -> str:
        """An object, brackets included."""
        return self._value(self._schema)

    def python(self) -> str:
        """`a=1, b="x"`."""
        return self._properties(lambda key, schema: f"{self._lark.quoted(f'{key}=')} {self._value(schema)}", ", ")

    def parameters(self) -> str:
        """One element for each argument."""
        return self._properties(self._parameter, "")

    def keyed(self) -> str:
        """`a:1,b:MARKxMARK`."""
        return self._properties(lambda key, schema: f"{self._lark.quoted(f'{key}:')} {self._marked(schema, 0)}", ",")

    def _properties(
        self, write: Callable[[str, object], str], separator: str, schema: Mapping[str, object] | None = None
    ) -> str:
        """The properties of an object in their order, those that are not required or not, with separators between."""
        lark, schema = self._lark, self._schema if schema is None else schema
        self._check_plain(schema)
        properties, required = schema.get("properties"), schema.get("required")
        wanted = set(required) if isinstance(required, list) else set()
        entries = list(properties.items()) if isinstance(properties, Mapping) else []
        if wanted - {key for key, _ in entries}:
            raise self._refused("it requires a property that it does not describe")
        # `later` follows another property, and so begins with a separator; `first` follows none.
        first = later = '""'
        for key, entry in reversed(entries):
            one, optional = write(str(key), entry), key not in wanted
            then = lark.join(one, later)
            behind = lark.join(lark.quoted(separator) if separator else "", then)
            first = lark.rule("first", f"{then} | {first}" if optional else then)
            later = lark.rule("later", f"{behind} | {later}" if optional else behind)
        return first

    def _parameter(self, key: str, schema: object) -> str:
        """A string stands as it is; anything else as JSON."""
        lark, form = self._lark, self._form
        head = lark.literal(form.parameter_start + key + form.key_end)
        if schema_types(schema) != {"string"}:
            return lark.join(head, self._value(schema), lark.literal(form.parameter_end))
        choices = _choices(schema)
        if choices is not None:
            options = lark.rule("choice", " | ".join(lark.quoted(choice) for choice in choices))
            return lark.join(head, options, lark.literal(form.parameter_end))
        self._check_string(schema)
        end = form.parameter_end.strip()
        rest = form.parameter_end[form.parameter_end.index(end) + len(end) :]
        return lark.join(head, lark.up_to("raw", end), lark.literal(rest))

    def _marked(self, schema: object, depth: int) -> str:
        """A value in an object with bare keys."""
        lark, mark = self._lark, self._form.string_mark
        if depth > _MOST_NESTED or not isinstance(schema, Mapping):
            raise self._refused("it is nested too deep, or has no types")
        types, choices = schema_types(schema), _choices(schema)
        if types == {"string"} and choices is not None:
            return lark.rule("choice", " | ".join(lark.literal(f"{mark}{choice}{mark}") for choice in choices))
        if types == {"string"}:
            self._check_string(schema)
            return lark.join(lark.literal(mark), lark.up_to("raw", mark))
        if types == {"object"}:
            inner = self._properties(
                lambda key, entry: f"{lark.quoted(f'{key}:')} {self._marked(entry, depth + 1)}", ",", schema
            )
            return lark.join(lark.quoted("{"), inner, lark.quoted("}"))
        if types == {"array"}:
            return self._marked_items(schema, depth)
        if types and not types & {"string", "object", "array"}:
            return self._value(schema)
        raise self._refused("a value has no type, or several")

    def _marked_items(self, schema: Mapping[str, object], depth: int) -> str:
        lark = self._lark
        if self._tool.strict and schema.keys() & {"minItems", "maxItems", "uniqueItems", "prefixItems", "contains"}:
            raise self._refused("the number and order of a list's items cannot be kept to")
        item = lark.rule("item", self._marked(schema.get("items"), depth + 1))
        return f'"[" ({item} ("," {item})*)? "]"'

    def _value(self, schema: object) -> str:
        """A value as JSON."""
        lark = self._lark
        layout = {**JSON_LAYOUT, "lenient": not self._tool.strict}
        if isinstance(schema, bool):
            whole: dict[str, object] = {} if schema else {"not": {}}
        else:
            whole = dict(schema) if isinstance(schema, Mapping) else {}
        shared = {key: self._tool.parameters[key] for key in _DEFINITIONS if key in self._tool.parameters}
        return lark.rule("value", f"%json {json.dumps({**shared, **whole, 'x-guidance': layout})}")

    def _check_plain(self, schema: Mapping[str, object]) -> None:
        if self._tool.strict and (found := [key for key in _COMBINED if key in schema]):
            raise self._refused(f"`{found[0]}` cannot be kept to")

    def _check_string(self, schema: object) -> None:
        assert isinstance(schema, Mapping)
        if self._tool.strict and (found := [key for key in _OF_STRINGS if key in schema]):
            raise self._refused(f"`{found[0]}` of a string cannot be kept to")

    def _refused(self, reason: str) -> RequestError:
        return RequestError(
            f"The parameters of the tool `{self._tool.name}` cannot be guaranteed in this model's format of calls:"
            f" {reason}",
            param="tools",
            code="invalid_schema",
            hint="Leave out `strict`, or make the schema simpler.",
        )


def _closed(schema: Mapping[str, object]) -> dict[str, object]:
    """Arguments are an object; one that names properties has no others unless it says so."""
    found: dict[str, object] = {"type": "object", **schema}
    if "$ref" not in schema and ("properties" in schema or not schema):
        found.setdefault("properties", {})
        found.setdefault("additionalProperties", False)
    return found


def _choices(schema: object) -> list[str] | None:
    """The strings that a schema allows, where it names them."""
    if not isinstance(schema, Mapping):
        return None
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list):
        return None
    return [value for value in values if isinstance(value, str)]
