"""The calls that stand together in a reply: what they begin with, what separates them, what they end with.

Reads through `call_reader`, tells events. A call is told when it is complete, or piece by piece where a grammar
guarantees its form; what turns out to be none is handed back as text.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass

from cupola.text.argument_values import Malformed, strict_json
from cupola.text.call_reader import Schema, Source, Steps, either, literal, read_call
from cupola.text.reply_events import ReplyEvent, ToolCallArguments, ToolCallBegin, ToolCallEnd
from cupola.text.reply_format import CallFormat

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class CallRules:
    """What counts as a call.

    Args:
        schemas: of the arguments of each tool that may be called.
        guaranteed: a grammar guarantees that calls are well-formed.
        single: only the first call counts.
    """

    schemas: Mapping[str, Schema]
    guaranteed: bool = False
    single: bool = False


def random_id(length: int) -> str:
    """Letters and digits that nobody guesses."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


class CallSection:
    """The calls of one reply.

    Args:
        form: how the model writes them.
        source: where they are read from.
        tell: takes the events.
    """

    def __init__(
        self,
        form: CallFormat,
        rules: CallRules,
        source: Source,
        tell: Callable[[ReplyEvent], None],
        new_id: Callable[[int], str] = random_id,
    ) -> None:
        self.count = 0
        self._form = form
        self._rules = rules
        self._source = source
        self._tell = tell
        self._new_id = new_id
        self._pending: list[ReplyEvent] = []
        self._begun = False
        self._known: Collection[str] | None = None

    @property
    def openers(self) -> tuple[str, ...]:
        """The words that announce calls; of several, a grammar watches the first only."""
        form = self._form
        if not self._rules.guaranteed:
            return form.openers
        return () if form.bare else form.openers[:1]

    def read(self, opener: str) -> Generator[None, None, bool]:
        """Reads on behind an opener, one of `CallFormat.openers`, or nothing where a bare call may begin.

        Returns whether there was a call; if not, the source stands where it stood.
        """
        source, form = self._source, self._form
        begin = source.at
        self._known = None if opener else self._rules.schemas.keys()
        try:
            yield from self._open(opener)
        except Malformed:
            source.at = begin
            return False
        if not (yield from self._attempt()):
            source.at = begin
            return False
        separator = form.separator.strip()
        # Where nothing but white space separates calls, whatever follows may be one.
        only_space = bool(form.begin) and not (separator or form.start or form.close)
        while True:
            behind = source.at
            which = yield from either(source, (separator, form.start, form.close, form.finish))
            if which in (2, 3):
                yield from self._close(which == 2)
                return True
            if which is None and not only_space:
                return True
            if which == 0:
                source.at += len(separator)
            if not (yield from self._attempt(form.start)):
                source.at = behind
                return True

    def _open(self, opener: str) -> Steps:
        """From behind the opener to the body of the first call."""
        source, form = self._source, self._form
        whole = next((text for text in (form.begin, form.start, *form.other_starts) if first_word(text) == opener), "")
        yield from literal(source, whole.strip().removeprefix(opener))
        if whole == form.start and form.start and whole != form.begin:
            return
        yield from literal(source, form.open)
        if whole == form.begin:
            yield from literal(source, form.start)

    def _close(self, with_bracket: bool) -> Steps:
        source, form = self._source, self._form
        if with_bracket:
            source.at += len(form.close)
            if not form.finish or (yield from either(source, (form.finish,))) is None:
                return
        try:
            yield from literal(source, form.finish, at_end=True)
        except Malformed:
            return

    def _attempt(self, start: str = "") -> Generator[None, None, bool]:
        """Reads one call. False: it is none, and nothing was told."""
        source, form = self._source, self._form
        self._begun = False
        try:
            yield from literal(source, start)
            yield from read_call(source, form, self._rules.schemas, self)
            yield from literal(source, form.end, at_end=True)
            self._check()
        except Malformed:
            self._pending.clear()
            if not (self._begun and self._rules.guaranteed):
                return False
            source.at = len(source.text)  # cut within a call that was told already
        self._tell_all()
        if self._rules.guaranteed or not (self._rules.single and self.count):
            self._tell(ToolCallEnd(self.count))
        self.count += 1
        return True

    def begin(self, name: str) -> None:
        """A call of this function. Malformed: there can be no such function."""
        if not _NAME.fullmatch(name) or (self._known is not None and name not in self._known):
            raise Malformed(f"there is no tool {name}")
        self._begun = True
        self._put(ToolCallBegin(self.count, self._id(name), name))

    def arguments(self, text: str) -> None:
        """More of its arguments."""
        self._put(ToolCallArguments(self.count, text))

    def _put(self, event: ReplyEvent) -> None:
        if self._rules.guaranteed:
            self._tell(event)
        else:
            self._pending.append(event)

    def _check(self) -> None:
        if self._rules.guaranteed:
            return
        text = "".join(event.text for event in self._pending if isinstance(event, ToolCallArguments))
        try:
            value = strict_json(text)
        except ValueError:
            raise Malformed("the arguments are no JSON") from None
        if not isinstance(value, dict):
            raise Malformed("the arguments are no object")

    def _tell_all(self) -> None:
        if not (self._rules.single and self.count):
            for event in self._pending:
                self._tell(event)
        self._pending.clear()

    def _id(self, name: str) -> str:
        if self._form.ids == "alphanumeric":
            return self._new_id(9)
        return (
            self._form.ids.replace("{name}", name)
            .replace("{index}", str(self.count))
            .replace("{random}", self._new_id(24))
        )


def first_word(text: str) -> str:
    """A delimiter up to its first white space."""
    return text.split()[0] if text.split() else ""
