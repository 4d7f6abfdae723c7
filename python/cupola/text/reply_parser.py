"""A model's reply, piece by piece, as events: content, reasoning, tool calls. Knows no wire format and no engine.

One parser for all families, driven by a `ReplyFormat`. However the text is cut into pieces, the events say the same.
Nothing is held back but what could be a delimiter, white space that may belong to one, and calls: a call is told once
it is complete and well-formed, and what turns out to be none is content. Where a grammar guarantees the form, calls are
told as they come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass

from cupola.text.call_reader import Source, Steps, skip_space
from cupola.text.call_section import CallRules, CallSection, random_id
from cupola.text.reply_events import (
    ContentDelta,
    ReasoningDelta,
    ReplyEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
    merged,
)
from cupola.text.reply_format import NO_FORMAT, ReplyFormat

__all__ = [
    "ContentDelta",
    "Reading",
    "ReasoningDelta",
    "ReplyEvent",
    "ReplyParser",
    "ToolCallArguments",
    "ToolCallBegin",
    "ToolCallEnd",
]

_TextKind = type[ContentDelta] | type[ReasoningDelta]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one reply is to be read.

    Args:
        format: the model's.
        rules: what counts as a call; None: calls are not looked for.
        inside_reasoning: the prompt has begun the reasoning already.
        hidden: special tokens that the text shows, because delimiters are made of them; never part of content.
    """

    format: ReplyFormat = NO_FORMAT
    rules: CallRules | None = None
    inside_reasoning: bool = False
    hidden: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """There is nothing to look for: all is content."""
        looks_for_calls = self.rules is not None and self.format.calls is not None
        return self.format.reasoning is None and not looks_for_calls and not self.hidden


PLAIN_READING = Reading()


class ReplyParser:
    """Turns the text of one reply into events.

    Args:
        reading: what to look for.
        new_id: makes the random part of calls' ids, given how many letters and digits.
    """

    def __init__(self, reading: Reading = PLAIN_READING, new_id: Callable[[int], str] = random_id) -> None:
        self._plain = reading.plain
        # Where in the text, by characters, reasoning stood, its delimiters included.
        self.reasoning_spans: list[tuple[int, int]] = []
        self._section: CallSection | None = None
        if self._plain:
            return
        self._reading = reading
        self._told: list[ReplyEvent] = []
        self._source = Source()
        if reading.rules is not None and reading.format.calls is not None:
            self._section = CallSection(reading.format.calls, reading.rules, self._source, self._told.append, new_id)
        self._framing = self._find_framing()
        self._dropped = 0  # characters that the source has forgotten
        self._space = ""  # white space that may stand before a delimiter
        self._trim = False  # white space that comes now belongs to the delimiter before it
        self._steps = self._read()

    def push(self, text: str) -> tuple[ReplyEvent, ...]:
        """More text; gives what is certain now."""
        if self._plain:
            return (ContentDelta(text),) if text else ()
        if text:
            self._source.text += text
            next(self._steps)
        return self._take()

    def finish(self) -> tuple[ReplyEvent, ...]:
        """The text is complete; gives what was held back."""
        if self._plain:
            return ()
        self._source.final = True
        for _ in self._steps:
            pass
        return self._take()

    @property
    def has_calls(self) -> bool:
        """A call was told."""
        return self._section is not None and self._section.count > 0

    def _take(self) -> tuple[ReplyEvent, ...]:
        told = merged(self._told)
        self._told.clear()
        return told

    # The reply as a whole.

    def _read(self) -> Steps:
        thinking, section = self._reading.format.reasoning, self._section
        if self._reading.inside_reasoning:
            yield from self._reason(0)
        else:
            yield from self._bare_call()
        openers = section.openers if section is not None else ()
        marks = _Marks({*self._framing, *openers})
        while (mark := (yield from self._text_until(marks, ContentDelta))) is not None:
            if section is not None and mark in openers:
                yield from self._calls(section, mark)
            elif thinking is not None and mark == thinking.start.strip():
                yield from self._reason(self._position - len(mark))
            else:
                self._space = ""
        if self._space and not self._trim:
            self._told.append(ContentDelta(self._space))

    def _find_framing(self) -> set[str]:
        """What is never content: special tokens, and delimiters of reasoning."""
        thinking = self._reading.format.reasoning
        marks = set(self._reading.hidden)
        if thinking is not None:
            marks.update(text.strip() for text in (thinking.start, thinking.end, *thinking.drop))
        return marks

    def _reason(self, begin: int) -> Steps:
        """From behind the start of reasoning to behind its end; `begin` is where its start begins."""
        thinking, section = self._reading.format.reasoning, self._section
        assert thinking is not None
        openers: Collection[str] = ()
        if section is not None:
            # A call ends it too, if its delimiter cannot be a word of the thoughts.
            openers = {text for text in section.openers if any(token in text for token in self._reading.hidden)}
        end = thinking.end.strip()
        marks = _Marks({thinking.start.strip(), end, *openers, *self._reading.hidden})
        self._space, self._trim = "", True
        while (mark := (yield from self._text_until(marks, ReasoningDelta))) not in (end, None, *openers):
            pass
        self.reasoning_spans.append((begin, self._position))
        self._space, self._trim = "", True
        if section is not None and mark is not None and mark in openers:
            yield from self._calls(section, mark)
        else:
            yield from self._bare_call()

    @property
    def _position(self) -> int:
        """Characters of the whole text that were read."""
        return self._dropped + self._source.at

    # Calls.

    def _calls(self, section: CallSection, opener: str) -> Steps:
        """The calls behind an opener; where there are none, it was a word of the text."""
        if (yield from section.read(opener)):
            self._space, self._trim = "", True
            return
        if opener not in self._framing:
            for token in self._reading.hidden:
                opener = opener.replace(token, "")
            self._tell(opener, ContentDelta)

    def _bare_call(self) -> Steps:
        """Where an answer begins, it may be a call that nothing announces."""
        source, form, section = self._source, self._reading.format.calls, self._section
        if form is None or section is None or not form.bare:
            return
        begin = source.at
        yield from skip_space(source)
        if source.text.startswith(form.open or "{", source.at) and (yield from section.read("")):
            self._space, self._trim = "", True
        else:
            source.at = begin

    # Text.

    def _text_until(self, marks: _Marks, kind: _TextKind) -> Generator[None, None, str | None]:
        """Tells text up to the next delimiter, and reads that; None at the end of the text."""
        source = self._source
        while True:
            end, mark = marks.find(source.text, source.at, source.final)
            self._tell(source.text[source.at : end], kind)
            end += len(mark)
            self._dropped += end
            source.text, source.at = source.text[end:], 0
            if mark:
                return mark
            if source.final:
                return None
            yield

    def _tell(self, text: str, kind: _TextKind) -> None:
        if self._trim:
            text = text.lstrip()
        if not text:
            return
        self._trim = False
        text = self._space + text
        told = text.rstrip()
        self._space = text[len(told) :]
        if told:
            self._told.append(kind(told))


class _Marks:
    """Strings that are looked for in a text which grows."""

    def __init__(self, texts: Collection[str]) -> None:
        longest_first = sorted(texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if texts else None
        self._beginnings = {text[:length] for text in texts for length in range(1, len(text))}
        self._most = max(map(len, texts), default=0) - 1

    def find(self, text: str, begin: int, final: bool) -> tuple[int, str]:
        """Up to where the text is certain, and the string that begins there; none of them: an empty one."""
        match = self._pattern.search(text, begin) if self._pattern is not None else None
        found = len(text) if match is None else match.start()
        if not final:
            for at in range(max(begin, len(text) - self._most), min(found + 1, len(text))):
                if text[at:] in self._beginnings:
                    return at, ""
        return found, "" if match is None else match.group()
