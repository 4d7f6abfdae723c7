"""Reads the calls in a model's reply as their text arrives: one function for each syntax of `CallFormat`.

Every reader is a generator that stops with a bare `yield` where it needs more text, so that it may be cut anywhere. It
raises Malformed when what it has read is no call; undoing what was told is then its caller's business.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cupola.text.argument_values import Malformed, keyed_object, parameter_value, python_value
from cupola.text.reply_format import CallFormat
from cupola.text.unicode import is_unicode

Steps = Generator[None, None, None]
Schema = Mapping[str, object]

_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_SCALAR_END = re.compile(r"[\s,}\]]")
# What is none of these ends a call at once: else each of many openers in a text would read on to its end.
_OUTSIDE_STRINGS = frozenset('{}[]",:+-. \t\r\n' + string.ascii_letters + string.digits)
_OUTSIDE_PYTHON_STRINGS = _OUTSIDE_STRINGS | frozenset("()'_")
_MOST_BETWEEN = 256  # characters between a name and its arguments


@dataclass(slots=True)
class Source:
    """Text that grows: `at` is where reading has come to; `final` says that nothing will follow."""

    text: str = ""
    at: int = 0
    final: bool = False

    def more(self) -> Steps:
        """Wait for text. Malformed: there will be none."""
        if self.final:
            raise Malformed("the text ends within a call")
        yield


class CallSink(Protocol):
    """Where a reader tells what it has read."""

    def begin(self, name: str) -> None:
        """A call of this function. Malformed: it must not be one."""

    def arguments(self, text: str) -> None:
        """More of its arguments, as JSON text."""


def skip_space(source: Source) -> Steps:
    """To the next character that is no white space, or to the end of the text."""
    while True:
        while source.at < len(source.text) and source.text[source.at].isspace():
            source.at += 1
        if source.at < len(source.text) or source.final:
            return
        yield


def literal(source: Source, text: str, *, at_end: bool = False) -> Steps:
    """Reads a delimiter, with any white space around its words. `at_end`: the end of the text is as good."""
    for word in text.split():
        yield from skip_space(source)
        while not source.text.startswith(word, source.at):
            rest = source.text[source.at : source.at + len(word)]
            if not word.startswith(rest):
                raise Malformed(f"{word} is missing")
            if source.final and at_end:
                source.at = len(source.text)
                return
            yield from source.more()
        source.at += len(word)


def either(source: Source, texts: Sequence[str]) -> Generator[None, None, int | None]:
    """Which of these delimiters comes next; None: none of them. Reads only the white space before it."""
    firsts = [text.split()[0] if text.split() else "" for text in texts]
    yield from skip_space(source)
    while True:
        rest = source.text[source.at :]
        found = [index for index, word in enumerate(firsts) if word and rest.startswith(word)]
        if found:
            return max(found, key=lambda index: len(firsts[index]))
        if source.final or not any(word.startswith(rest[: len(word)]) for word in firsts if word):
            return None
        yield


def until(source: Source, text: str) -> Generator[None, None, str]:
    """Reads up to a delimiter and beyond it: what stands before it."""
    begin, searched = source.at, source.at
    while (found := source.text.find(text, searched)) < 0:
        searched = max(begin, len(source.text) - len(text))
        yield from source.more()
    source.at = found + len(text)
    return source.text[begin:found]


def json_text(source: Source, tell: Callable[[str], None]) -> Steps:
    """Reads one JSON value and tells its text as it comes. Its brackets have to match; little more is looked at."""
    yield from skip_space(source)
    if source.at >= len(source.text):
        yield from source.more()
    if source.text[source.at] not in '{["':
        yield from _json_scalar(source, tell)
        return
    depth, quoted, escaped, done = 0, False, False, False
    begin = source.at
    while True:
        while source.at < len(source.text) and not done:
            character = source.text[source.at]
            source.at += 1
            if escaped:
                escaped = False
            elif quoted:
                escaped, quoted = character == "\\", character != '"'
            elif character not in _OUTSIDE_STRINGS:
                raise Malformed("a value is not JSON")
            else:
                quoted = character == '"'
                depth += (character in "{[") - (character in "}]")
            done = not depth and not quoted
        if source.at > begin:
            tell(source.text[begin : source.at])
        begin = source.at
        if done:
            return
        yield from source.more()


def _json_scalar(source: Source, tell: Callable[[str], None]) -> Steps:
    begin = source.at
    while (match := _SCALAR_END.search(source.text, begin)) is None:
        yield from source.more()
    source.at = match.start()
    tell(source.text[begin : source.at])


def read_call(source: Source, form: CallFormat, schemas: Mapping[str, Schema], sink: CallSink) -> Steps:
    """Reads the body of a call. Malformed: it is none."""
    match form.syntax:
        case "json":
            yield from _read_json(source, form, sink)
        case "named":
            yield from _read_named(source, form, sink)
        case "python":
            yield from _read_python(source, sink)
        case "parameters":
            yield from _read_parameters(source, form, schemas, sink)
        case "keyed":
            yield from _read_keyed(source, form, sink)


def _read_json(source: Source, form: CallFormat, sink: CallSink) -> Steps:
    """The members of the object may come in any order; arguments that precede the name wait for it."""
    yield from literal(source, "{")
    name: str | None = None
    arguments: list[str] | None = None
    while True:
        key = yield from _json_string(source)
        yield from literal(source, ":")
        if key == form.name_key and name is None:
            name = yield from _json_string(source)
            sink.begin(name)
        elif key in (form.arguments_key, "arguments", "parameters") and arguments is None:
            arguments = yield from _json_arguments(source, sink if name is not None else None)
        else:
            yield from json_text(source, lambda _text: None)
        if (yield from _next_member(source)):
            continue
        break
    if name is None:
        raise Malformed("the call has no name")
    for piece in ["{}"] if arguments is None else arguments:
        sink.arguments(piece)


def _json_arguments(source: Source, sink: CallSink | None) -> Generator[None, None, list[str]]:
    """Tells an object's text as it comes; what was not told is returned. Some models write it as a string of JSON."""
    yield from skip_space(source)
    if source.at >= len(source.text):
        yield from source.more()
    held: list[str] = []
    if source.text[source.at] == '"':
        text = yield from _json_string(source)
        if not is_unicode(text):
            raise Malformed("the arguments are no text")
        return [text]
    if source.text[source.at] != "{":
        raise Malformed("the arguments are no object")
    yield from json_text(source, held.append if sink is None else sink.arguments)
    return held


def _json_string(source: Source) -> Generator[None, None, str]:
    pieces: list[str] = []
    yield from literal(source, '"')
    source.at -= 1
    yield from json_text(source, pieces.append)
    try:
        text: str = json.loads("".join(pieces))
    except ValueError:
        raise Malformed("a string is not JSON") from None
    return text


def _next_member(source: Source) -> Generator[None, None, bool]:
    index = yield from either(source, (",", "}"))
    if index is None:
        raise Malformed("an object does not end")
    source.at += 1
    return index == 0


def _name(source: Source) -> Generator[None, None, str]:
    yield from skip_space(source)
    while True:
        match = _NAME.match(source.text, source.at)
        end = match.end() if match else source.at
        if end < len(source.text) or source.final:
            break
        yield
    if match is None:
        raise Malformed("the call has no name")
    source.at = end
    return match.group()


def _read_named(source: Source, form: CallFormat, sink: CallSink) -> Steps:
    sink.begin((yield from _name(source)))
    begin, mark = source.at, form.arguments_mark or form.arguments_start.strip()
    yield from skip_space(source)
    while (found := source.text.find(mark, begin)) < 0:
        if source.text.startswith("{", source.at):
            break  # some models leave the mark out
        if len(source.text) - begin > _MOST_BETWEEN:
            raise Malformed(f"{mark} is missing")
        yield from source.more()
    if found >= 0:
        source.at = found + len(mark)
    for piece in (yield from _json_arguments(source, sink)):
        sink.arguments(piece)


def _read_python(source: Source, sink: CallSink) -> Steps:
    sink.begin((yield from _name(source)))
    yield from literal(source, "(")
    arguments: dict[str, object] = {}
    while (yield from either(source, (")",))) is None:
        key = yield from _name(source)
        yield from literal(source, "=")
        arguments[key] = python_value((yield from _python_text(source)))
        if (yield from either(source, (",",))) is not None:
            source.at += 1
    source.at += 1
    sink.arguments(as_json(arguments))


def _python_text(source: Source) -> Generator[None, None, str]:
    """The text of a value: up to the comma or bracket that ends it."""
    begin, at, depth, quote = source.at, source.at, 0, ""
    while True:
        while at < len(source.text):
            character = source.text[at]
            if quote:
                at += character == "\\"
                quote = "" if character == quote else quote
            elif not depth and character in ",)":
                source.at = at
                return source.text[begin:at]
            elif character not in _OUTSIDE_PYTHON_STRINGS:
                raise Malformed("a value is no literal")
            else:
                quote = character if character in "\"'" else ""
                depth += (character in "([{") - (character in ")]}")
            at += 1
        yield from source.more()


def _read_parameters(source: Source, form: CallFormat, schemas: Mapping[str, Schema], sink: CallSink) -> Steps:
    name = yield from _name(source)
    sink.begin(name)
    yield from literal(source, form.name_end)
    arguments: dict[str, object] = {}
    while (yield from either(source, (form.parameter_start, form.end))) == 0:
        yield from literal(source, form.parameter_start)
        first, *others = form.key_end.split()
        key = (yield from until(source, first)).strip()
        yield from literal(source, " ".join(others))
        value = yield from until(source, form.parameter_end.strip())
        arguments[key] = parameter_value(value, key, schemas.get(name, {}))
    sink.arguments(as_json(arguments))


def _read_keyed(source: Source, form: CallFormat, sink: CallSink) -> Steps:
    sink.begin((yield from _name(source)))
    yield from literal(source, "{")
    begin, depth = source.at - 1, 1
    # A mark has no brackets, so that the first of these is never within one that is cut.
    brackets = re.compile("|".join(map(re.escape, (form.string_mark, "{", "}"))))
    while depth:
        while (match := brackets.search(source.text, source.at)) is None:
            yield from source.more()
        if "<" in source.text[source.at : match.start()]:
            raise Malformed("a value has a delimiter in it")
        source.at = match.end()
        if match.group() == form.string_mark:
            yield from until(source, form.string_mark)
        else:
            depth += 1 if match.group() == "{" else -1
    sink.arguments(as_json(keyed_object(source.text[begin : source.at], form.string_mark)))


def as_json(arguments: object) -> str:
    """JSON text of values that were read from another syntax. Malformed: one of them has none."""
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        # Half of a surrogate pair has no UTF-8, but JSON can escape it.
        return text if is_unicode(text) else json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise Malformed("an argument has no JSON") from None
