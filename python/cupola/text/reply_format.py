"""How a model writes what is not plain text: delimiters of reasoning and tool calls. Data, and how it is found.

The table is `reply_formats.toml`; the parser (`reply_parser`) and the grammars of tool calls are built from the same
values, so that what a grammar lets a model write is what the parser reads.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from cupola.errors import UsageError

Syntax = Literal["json", "named", "python", "parameters", "keyed"]
Detect = tuple[tuple[str, ...], ...]

GENERIC_CALLS = "hermes"
"""The format in which tools are put to a model whose template knows none."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Where a model thinks.

    Args:
        start, end: delimiters.
        after: what a model writes between the end and its answer; for grammars.
        content_start, content_end: what it writes around its answer; for grammars.
        drop: framing that is no text and no delimiter either.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    start: str
    end: str
    after: str = ""
    content_start: str = ""
    content_end: str = ""
    drop: tuple[str, ...] = ()
    detect: Detect = ()


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How tool calls are written.

    A reply's calls are `begin` `open` call `separator` call ... `close` `finish`, and a call is `start` body `end`. The
    body depends on the syntax:

        json         {"NAME_KEY": "name", "ARGUMENTS_KEY": {...}}
        named        name `arguments_start` {...}
        python       name(a=1, b="x")
        parameters   name `name_end`, then for each argument `parameter_start` name `key_end` value `parameter_end`
        keyed        name{a:1,b:MARKxMARK}, where MARK is `string_mark`

    Args:
        tag: follows the name in the syntax `named`; `{index}` counts the calls.
        extra: the first members of the object in the syntax `json`, likewise.
        arguments_mark: the least that has to stand between name and arguments; by default `arguments_start`.
        other_starts: further texts with which a call, or a list of them, begins.
        bare: a reply that begins with the first bracket is a call, if it names a tool.
        end_is_eos: `end` ends the generation, so that it is not part of the text.
        ids: pattern of the ids that calls get: OpenAI's, nine letters and digits, or made of name and index.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    syntax: Syntax
    begin: str = ""
    open: str = ""
    start: str = ""
    end: str = ""
    separator: str = ""
    close: str = ""
    finish: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"
    extra: str = ""
    tag: str = ""
    arguments_start: str = ""
    arguments_mark: str = ""
    name_end: str = ""
    parameter_start: str = ""
    key_end: str = ""
    parameter_end: str = ""
    string_mark: str = ""
    other_starts: tuple[str, ...] = ()
    bare: bool = False
    end_is_eos: bool = False
    ids: str = "call_{random}"
    detect: Detect = ()

    @property
    def openers(self) -> tuple[str, ...]:
        """The first words of all texts with which calls begin."""
        return tuple(text.split()[0] for text in (self.begin, self.start, *self.other_starts) if text.strip())

    @property
    def literals(self) -> tuple[str, ...]:
        """All delimiters."""
        own = (self.begin, self.open, self.start, self.end, self.separator, self.close, self.finish)
        inner = (self.arguments_start, self.name_end, self.parameter_start, self.key_end, self.parameter_end)
        return tuple(text for text in (*own, *inner, self.string_mark, *self.other_starts) if text)


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """What a model's replies are made of; None: it does not think, or writes no calls."""

    reasoning: Reasoning | None = None
    calls: CallFormat | None = None

    @property
    def literals(self) -> tuple[str, ...]:
        """All delimiters."""
        found = self.calls.literals if self.calls is not None else ()
        if self.reasoning is not None:
            thinking = self.reasoning
            found += (thinking.start, thinking.end, thinking.after, thinking.content_start, thinking.content_end)
            found += thinking.drop
        return tuple(text for text in found if text)

    def special_tokens(self, tokens: Iterable[str]) -> tuple[str, ...]:
        """Those of a tokenizer's special tokens that delimiters are made of."""
        literals = self.literals
        return tuple(token for token in tokens if any(token in literal for literal in literals))

    def begins_inside(self, prompt: str) -> bool:
        """Whether a prompt ends within reasoning, because the template has begun it."""
        return self.reasoning is not None and prompt.rstrip().endswith(self.reasoning.start.strip())

    def begins_after(self, prompt: str) -> bool:
        """Whether a prompt ends with the end of reasoning, because there shall be none."""
        return self.reasoning is not None and prompt.rstrip().endswith(self.reasoning.end.strip())


NO_FORMAT = ReplyFormat()
"""Of a model that only writes text."""


@dataclass(frozen=True, slots=True)
class FormatTable:
    """All formats by their names, in the order in which they are looked for."""

    reasoning: Mapping[str, Reasoning] = field(default_factory=dict)
    calls: Mapping[str, CallFormat] = field(default_factory=dict)


@cache
def format_table() -> FormatTable:
    """The table that comes with Cupola."""
    table = tomllib.loads((files("cupola.text") / "reply_formats.toml").read_text(encoding="utf-8"))
    return FormatTable(
        TypeAdapter(dict[str, Reasoning]).validate_python(_named(table["reasoning"])),
        TypeAdapter(dict[str, CallFormat]).validate_python(_named(table["calls"])),
    )


def detect_format(template: str | None) -> ReplyFormat:
    """The format of the model that has this chat template; the generic one for calls where the template knows none."""
    table = format_table()
    if template is None:
        return NO_FORMAT
    thinking = next((entry for entry in table.reasoning.values() if _detects(entry.detect, template)), None)
    calls = next((entry for entry in table.calls.values() if _detects(entry.detect, template)), None)
    return ReplyFormat(thinking, calls or table.calls[GENERIC_CALLS])


def named_format(name: str, template: str | None = None) -> ReplyFormat:
    """The format of a name: CALLS, CALLS+REASONING or CALLS+none; "auto" asks the chat template.

    Raises:
        UsageError: there is no such format.
    """
    found = detect_format(template)
    calls, plus, thinking = name.partition("+")
    if name == "auto":
        return found
    table = format_table()
    if calls not in table.calls:
        raise UsageError(f"There is no format `{calls}` of tool calls", hint=f"Known: {', '.join(table.calls)}.")
    if plus and thinking != "none" and thinking not in table.reasoning:
        raise UsageError(f"There is no format `{thinking}` of reasoning", hint=f"Known: {', '.join(table.reasoning)}.")
    return ReplyFormat(table.reasoning.get(thinking) if plus else found.reasoning, table.calls[calls])


def _detects(detect: Detect, template: str) -> bool:
    return any(all(text in template for text in texts) for texts in detect)


def _named(entries: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    return {name: {"name": name, **entry} for name, entry in entries.items()}
