"""Replies of every family become the same events, however they are cut, and nothing of them is lost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reply_cases import CASES, MALFORMED, SCHEMAS, Case

from cupola.text.call_section import CallRules
from cupola.text.reply_events import (
    ContentDelta,
    ReasoningDelta,
    ReplyEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
    merged,
)
from cupola.text.reply_format import ReplyFormat, format_table
from cupola.text.reply_parser import Reading, ReplyParser

TABLE = format_table()
RULES = CallRules(SCHEMAS)


def reading(case: Case, rules: CallRules | None = RULES) -> Reading:
    thinking = TABLE.reasoning[case.reasoning_format] if case.reasoning_format else None
    return Reading(ReplyFormat(thinking, TABLE.calls[case.calls_format]), rules, case.inside, case.hidden)


def parse(how: Reading, pieces: Iterable[str]) -> tuple[ReplyEvent, ...]:
    """All events, neighbours joined; ids are numbered."""
    numbers = iter(range(1000))
    parser = ReplyParser(how, lambda _length: str(next(numbers)))
    told = [event for piece in pieces for event in parser.push(piece)]
    return merged([*told, *parser.finish()])


def cut(text: str, cuts: Sequence[int]) -> list[str]:
    places = [0, *sorted(min(place, len(text)) for place in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def texts(events: Iterable[ReplyEvent], kind: type[ContentDelta] | type[ReasoningDelta]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def calls(events: Sequence[ReplyEvent]) -> list[tuple[str, str]]:
    begun = [event for event in events if isinstance(event, ToolCallBegin)]
    ended = [event.index for event in events if isinstance(event, ToolCallEnd)]
    assert [call.index for call in begun] == ended == list(range(len(begun)))
    assert len({call.id for call in begun}) == len(begun)
    arguments = [""] * len(begun)
    for event in events:
        if isinstance(event, ToolCallArguments):
            arguments[event.index] += event.text
    return [(call.name, text) for call, text in zip(begun, arguments, strict=True)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.calls_format}: {case.text[:24]!r}")
def test_replies_mean_what_their_family_means(case: Case) -> None:
    events = parse(reading(case), [case.text])
    assert texts(events, ContentDelta) == case.content
    assert texts(events, ReasoningDelta) == case.reasoning
    assert [(name, json.loads(text)) for name, text in calls(events)] == [
        (name, json.loads(text)) for name, text in case.calls
    ]
    assert parse(reading(case), case.text) == events, "a character at a time"


@pytest.mark.parametrize("name", sorted(TABLE.calls))
def test_every_format_of_calls_is_covered(name: str) -> None:
    assert any(case.calls for case in CASES if case.calls_format == name)


@pytest.mark.parametrize("name", sorted(TABLE.reasoning.keys() - {"kimi-vl"}))
def test_every_format_of_reasoning_is_covered(name: str) -> None:
    assert any(case.reasoning for case in CASES if case.reasoning_format == name)


@pytest.mark.parametrize(("calls_format", "text"), MALFORMED)
def test_what_is_no_call_is_content(calls_format: str, text: str) -> None:
    how = reading(Case(calls_format, text))
    assert parse(how, [text]) == parse(how, text) == (ContentDelta(text),)


@given(st.sampled_from(CASES), st.lists(st.integers(0, 200), max_size=6))
def test_where_the_text_is_cut_makes_no_difference(case: Case, cuts: list[int]) -> None:
    assert parse(reading(case), cut(case.text, cuts)) == parse(reading(case), [case.text])


@given(
    form=st.sampled_from(sorted(TABLE.calls)),
    thinking=st.sampled_from([None, *sorted(TABLE.reasoning)]),
    data=st.data(),
    inside=st.booleans(),
    guaranteed=st.booleans(),
)
def test_any_text_is_read_the_same_way_however_it_is_cut(
    form: str, thinking: str | None, data: st.DataObject, inside: bool, guaranteed: bool
) -> None:
    """Also what no grammar guarantees: then a call that was begun is cut, and no exception leaves the parser."""
    own = [*TABLE.calls[form].literals, *(case.text for case in CASES if case.calls_format == form)]
    own += ["<think>", "</think>", '{"name": "now", "arguments": ', "{}", "[", "}", "now(", "a", " ", "\n", "<", '"']
    text = "".join(data.draw(st.lists(st.one_of(st.sampled_from(own), st.text(max_size=3)), max_size=8)))
    cuts = data.draw(st.lists(st.integers(0, 300), max_size=6))
    found = TABLE.reasoning[thinking] if thinking else None
    how = Reading(ReplyFormat(found, TABLE.calls[form]), CallRules(SCHEMAS, guaranteed), inside and found is not None)
    assert parse(how, cut(text, cuts)) == parse(how, [text])


@given(st.text('<tool_call>{}:," nameow', max_size=60))
def test_without_calls_all_text_is_content(text: str) -> None:
    """Nothing is lost; white space at the ends of delimiters aside, of which there are none here."""
    how = Reading(ReplyFormat(None, TABLE.calls["hermes"]), RULES)
    events = parse(how, text)
    if not calls(events):
        assert texts(events, ContentDelta) == text


def test_plain_text_passes_as_it_is() -> None:
    parser = ReplyParser()
    assert parser.push("<think> hi \n") == (ContentDelta("<think> hi \n"),)
    assert parser.push("") == ()
    assert parser.finish() == ()


def test_content_is_told_as_soon_as_it_can_be_nothing_else() -> None:
    parser = ReplyParser(reading(CASES[0]))
    assert parser.push("Hello, ") == (ContentDelta("Hello,"),)
    assert parser.push("<b>") == (ContentDelta(" <b>"),)
    assert parser.push("<tool") == ()
    assert parser.push("box>") == (ContentDelta("<toolbox>"),)


def test_guaranteed_calls_are_told_as_they_come() -> None:
    parser = ReplyParser(reading(CASES[0], CallRules(SCHEMAS, guaranteed=True)), lambda _length: "x")
    assert parser.push('<tool_call>\n{"name": "now", "argu') == (ToolCallBegin(0, "call_x", "now"),)
    assert parser.push('ments": {"a": ') == (ToolCallArguments(0, '{"a": '),)
    assert parser.push("1}") == (ToolCallArguments(0, "1}"),)
    assert parser.push("}\n</tool_call>") == (ToolCallEnd(0),)


def test_a_guaranteed_call_that_is_cut_ends_all_the_same() -> None:
    how = reading(CASES[0], CallRules(SCHEMAS, guaranteed=True))
    *_, last = parse(how, ['<tool_call>\n{"name": "now", "arguments": {"a": '])
    assert last == ToolCallEnd(0)


@pytest.mark.parametrize(
    ("form", "opener"),
    [
        ("hermes", '<tool_call>{"a":['),
        ("hermes", '<tool_call>{"name":"f","arguments":{"'),
        ("lfm", "<|tool_call_start|>[f(a="),
        ("lfm", "<|tool_call_start|>[f(a='"),
        ("functiongemma", "<start_function_call>call:f{a:<escape>"),
        ("mistral", '[TOOL_CALLS][{"name":"f","arguments":{"a":{'),
    ],
)
def test_the_beginning_of_a_call_soon_ends_what_only_looked_like_one(form: str, opener: str) -> None:
    """Else each of many would read on to the end of the text, and the work would grow with its square."""
    parser = ReplyParser(reading(Case(form, "")))
    told = 0
    for count in range(1, 100):
        told += sum(len(event.text) for event in parser.push(opener) if isinstance(event, ContentDelta))
        assert told >= (count - 3) * len(opener)


def test_only_the_first_call_counts_where_one_was_asked_for() -> None:
    for case in CASES:
        events = parse(reading(case, CallRules(SCHEMAS, single=True)), [case.text])
        assert [name for name, _ in calls(events)] == [name for name, _ in case.calls[:1]]


def test_special_tokens_never_leak() -> None:
    """A call that is malformed, or that nobody asked for, loses its special tokens and nothing else."""
    case = Case("mistral", "Try [TOOL_CALLS] nothing [TOOL_CALLS]", hidden=("[TOOL_CALLS]",))
    assert "TOOL_CALLS" not in texts(parse(reading(case), [case.text]), ContentDelta)
    assert "nothing" in texts(parse(reading(case), [case.text]), ContentDelta)
    assert "TOOL_CALLS" not in texts(parse(reading(case, None), case.text), ContentDelta)


def test_calls_are_text_where_there_are_no_tools() -> None:
    for case in CASES:
        if not case.hidden:
            assert not calls(parse(reading(case, None), [case.text]))


def test_spans_of_reasoning_have_their_delimiters() -> None:
    parser = ReplyParser(reading(CASES[0]))
    for character in CASES[0].text:
        parser.push(character)
    assert parser.reasoning_spans == [(0, len("<think>\nHm.\n</think>"))]


@pytest.mark.parametrize(("form", "expected"), [("mistral", 9), ("hermes", len("call_") + 24)])
def test_ids_are_as_the_family_has_them(form: str, expected: int) -> None:
    case = next(case for case in CASES if case.calls_format == form and case.calls)
    parser = ReplyParser(reading(case))
    ids = [event.id for event in (*parser.push(case.text), *parser.finish()) if isinstance(event, ToolCallBegin)]
    assert [len(call_id) for call_id in ids] == [expected] * len(case.calls)
    assert len(set(ids)) == len(ids)
