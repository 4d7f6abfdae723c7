"""What a text must look like: a grammar as the user gives it, and the same compiled.

It says how each kind of grammar is put to llguidance, which knows JSON schemas, regular expressions and its dialect of
Lark. It compiles nothing itself, and knows neither tokens nor the engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from cupola.errors import RequestError
from cupola.text.unicode import is_unicode

MAX_GRAMMAR_BYTES = 1 << 20
"""Longest text of a grammar. Within it, nothing that llguidance takes costs more than seconds to compile."""

_MAX_CHOICES = 20_000

JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is laid out. One layout and no other: it is what models write by themselves, most of it is forced (and so
costs no sampling), and a model cannot lose itself in white space."""

_OBJECT = {"type": "object", "x-guidance": JSON_LAYOUT}


class GrammarKind(str, Enum):
    """The languages that a grammar can be written in."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """A grammar as it was given; make one with the functions below. The text of a request follows it from end to end.

    Args:
        kind: what `text` is.
        text: a JSON schema as JSON; nothing for JSON_OBJECT; a regular expression in Rust's syntax (it matches the
            whole text); a JSON list of strings for CHOICE; a grammar in llguidance's Lark, or in GBNF.
        frame: Lark of what stands around it, whose rule FRAMED stands for it; empty: nothing does.
    """

    kind: GrammarKind
    text: str
    frame: str = ""

    @classmethod
    def json_schema(cls, schema: Mapping[str, object] | bool | str) -> GrammarSpec:
        """JSON that fits a schema, in one layout: `{"a": 1, "b": [2, 3]}`, properties in the schema's order."""
        return cls(GrammarKind.JSON_SCHEMA, schema if isinstance(schema, str) else json.dumps(schema))

    @classmethod
    def json_object(cls) -> GrammarSpec:
        """Any JSON object."""
        return cls(GrammarKind.JSON_OBJECT, "")

    @classmethod
    def regex(cls, pattern: str) -> GrammarSpec:
        """Text that a regular expression matches as a whole."""
        return cls(GrammarKind.REGEX, pattern)

    @classmethod
    def choice(cls, choices: Sequence[str]) -> GrammarSpec:
        """One of these strings."""
        return cls(GrammarKind.CHOICE, json.dumps(list(choices)))

    @classmethod
    def grammar(cls, text: str) -> GrammarSpec:
        """Text of a context-free grammar, in Lark or in GBNF."""
        return cls(GrammarKind.GRAMMAR, text)


FRAMED = "framed"
"""The rule of a frame that stands for the grammar within it."""


@dataclass(frozen=True, slots=True)
class CompiledGrammar:
    """A grammar, ready for any number of requests to one model.

    Args:
        spec: what it was made of.
        handle: the native engine's.
    """

    spec: GrammarSpec
    handle: object


def check_grammar(spec: GrammarSpec) -> None:
    """Refuse at once what is not even the text of a grammar. RequestError names `grammar`."""
    if not isinstance(spec, GrammarSpec) or not isinstance(spec.text, str):
        raise RequestError("`grammar` is not a GrammarSpec", param="grammar")
    size = len(spec.text.encode("utf-8", "replace")) + len(spec.frame.encode("utf-8", "replace"))
    if size > MAX_GRAMMAR_BYTES:
        raise refused(spec, f"it has {size} bytes; allowed: at most {MAX_GRAMMAR_BYTES}")
    if not spec.text and spec.kind is not GrammarKind.JSON_OBJECT:
        raise refused(spec, "it is empty")


def llguidance_form(spec: GrammarSpec) -> tuple[str, str]:
    """The kind and text that llguidance understands. May take long for a long text.

    Raises:
        RequestError: the text is not of its kind.
    """
    kind, text = _put_to_llguidance(spec)
    if spec.frame:
        kind, text = "lark", _framed(spec.frame, kind, text)
    if "\0" in text or not is_unicode(text):
        raise refused(spec, "it has characters that no text can have (NUL, or half of a surrogate pair)")
    return kind, text


def refused(spec: GrammarSpec, reason: str, hint: str | None = None) -> RequestError:
    """The error of a grammar that cannot be used."""
    schema = spec.kind in (GrammarKind.JSON_SCHEMA, GrammarKind.JSON_OBJECT)
    return RequestError(
        f"The {spec.kind.value.replace('_', ' ')} cannot be used: {reason}",
        param="grammar",
        code="invalid_schema" if schema else "invalid_grammar",
        hint=hint,
    )


def _put_to_llguidance(spec: GrammarSpec) -> tuple[str, str]:
    match spec.kind:
        case GrammarKind.JSON_OBJECT:
            return "json_schema", json.dumps(_OBJECT)
        case GrammarKind.JSON_SCHEMA:
            return "json_schema", _laid_out(spec)
        case GrammarKind.CHOICE:
            return "regex", _alternatives(spec)
        case GrammarKind.GRAMMAR:
            return "lark", _from_gbnf(spec) if "::=" in spec.text else spec.text
    return "regex", spec.text


def _framed(frame: str, kind: str, text: str) -> str:
    if kind == "json_schema":
        return f"{frame}\n{FRAMED}: %json {text}\n"
    if kind == "lark":
        return f"{frame}\n{FRAMED}: %lark {{\n{text}\n}}\n"
    # Imported here: the package loads its native half, and few frames are around regular expressions.
    from llguidance._lib import regex_to_lark

    return f"{frame}\n{FRAMED}: /{regex_to_lark(text, '')}/\n"


def _laid_out(spec: GrammarSpec) -> str:
    schema = _parsed(spec)
    if schema is False:
        raise refused(spec, "no text can follow the schema `false`")
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise refused(spec, "a JSON schema is an object, true or false")
    return json.dumps({"x-guidance": JSON_LAYOUT, **schema})


def _alternatives(spec: GrammarSpec) -> str:
    choices = _parsed(spec)
    if not isinstance(choices, list) or not choices or not all(isinstance(item, str) and item for item in choices):
        raise refused(spec, "it must be a list of strings, at least one, and none of them empty")
    if len(choices) > _MAX_CHOICES:
        raise refused(spec, f"it has {len(choices)} strings; allowed: at most {_MAX_CHOICES}")
    return "|".join(re.escape(item) for item in choices)


def _parsed(spec: GrammarSpec) -> object:
    try:
        return json.loads(spec.text)
    except (ValueError, RecursionError) as error:
        raise refused(spec, f"it is not JSON ({error})") from None


def _from_gbnf(spec: GrammarSpec) -> str:
    # Imported here: the package loads its native half, and few grammars are GBNF.
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return str(any_to_lark(spec.text))
    except Exception as error:  # the converter raises plain Exception and whatever its parser runs into
        raise refused(
            spec, f"it cannot be converted from GBNF ({error})", "Write it in llguidance's Lark syntax."
        ) from None
