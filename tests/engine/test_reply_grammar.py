"""Whatever the grammar of a reply admits, the parser reads back: walks through the grammars of all families."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import jsonschema
import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer

from cupola.engine.backends.scripted import scripted_manifest
from cupola.engine.grammar import CompiledGrammar, GrammarSpec
from cupola.engine.grammar_compiler import GrammarCompiler
from cupola.engine.reply_grammar import ReasoningState, ReplyPlan, reply_grammar
from cupola.errors import RequestError
from cupola.manifest import SpecialIds
from cupola.protocol.conversation import Conversation, Tool, ToolChoice, ToolChoiceMode, text_message
from cupola.text.call_section import CallRules
from cupola.text.reply_events import (
    ContentDelta,
    ReasoningDelta,
    ReplyEvent,
    ToolCallArguments,
    ToolCallBegin,
    merged,
)
from cupola.text.reply_format import ReplyFormat, format_table
from cupola.text.reply_parser import Reading, ReplyParser
from cupola.text.tokenizer import BYTE_OF_CHARACTER, Tokenizer
from grammar_oracle import Walk

TABLE = format_table()
EOS = "<|endoftext|>"
WALKS = 4
STEPS = 1500

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "exact": {"type": "boolean"},
            "at": {
                "type": "object",
                "properties": {"lat": {"type": "number"}, "note": {"type": "string"}},
                "required": ["lat"],
                "additionalProperties": False,
            },
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    strict=True,
)
NOW = Tool("now", "The time.", {"type": "object", "properties": {}, "additionalProperties": False}, strict=True)
SCHEMAS = {tool.name: tool.parameters for tool in (WEATHER, NOW)}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer of bytes with the special tokens of a family, and grammars for it."""

    tokenizer: Tokenizer
    compiler: GrammarCompiler
    special_ids: Mapping[str, int]


@cache
def vocabulary(special: tuple[str, ...]) -> Vocabulary:
    raw = HfTokenizer(models.BPE(vocab=BYTE_OF_CHARACTER, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (EOS, *special)])
    tokenizer = Tokenizer(raw)
    base = scripted_manifest()
    size = tokenizer.vocab_size
    manifest = base.model_copy(
        update={
            "shape": base.shape.model_copy(update={"vocab_size": size, "logit_stride": size}),
            "special_ids": SpecialIds(eos=(256,)),
        }
    )
    ids = {token: tokenizer.token_id(token) or 0 for token in special}
    return Vocabulary(tokenizer, GrammarCompiler(tokenizer, manifest), ids)


def tokens_of(form: ReplyFormat) -> tuple[str, ...]:
    """The delimiters of a format that look like special tokens."""
    found = {
        token for literal in form.literals for token in re.findall(r"<[|｜][^<>]*[|｜]?>|\[[/A-Z_]{4,}\]", literal)
    }
    return tuple(sorted(found))


def conversation(
    mode: ToolChoiceMode, tools: Sequence[Tool] = (WEATHER, NOW), *, parallel: bool = True
) -> Conversation:
    choice = ToolChoice(mode, tools[0].name if mode == "named" else None)
    return Conversation((text_message("user", "hi"),), tuple(tools), choice, parallel)


def walk(words: Vocabulary, grammar: CompiledGrammar, form: ReplyFormat, seed: int) -> str | None:
    """A text that the grammar admits, in tokens drawn at random; None: it had no end in time.

    Where any text may follow, a delimiter is tried now and then: nobody would find one by chance.
    """
    rng = random.Random(seed)
    steps, text, planned = Walk(grammar), [], list[int]()
    delimiters = [words.tokenizer.encode(literal, add_special_tokens=False) for literal in form.literals]
    for step in range(STEPS):
        if steps.stopped:
            break
        allowed = steps.allowed()
        if steps.accepting and 256 in allowed and not planned and (rng.random() < 0.1 or step > 200):
            break
        printable = [token for token in allowed if token > 256 or 32 <= token < 127 or token == 10]
        printable = printable or [token for token in allowed if token != 256]
        if not planned and len(printable) > 90 and rng.random() < 0.2:
            planned = list(rng.choice(delimiters))
        if planned and planned[0] in allowed:
            token = planned.pop(0)
        else:
            planned = []
            ends = [token for token in printable if token > 256 or chr(token) in '"}])<>/,']
            token = rng.choice(ends if ends and rng.random() < min(0.9, 0.2 + step / 150) else printable)
        assert steps.accept(token)
        text.append(words.tokenizer.shown_bytes(token))
    else:
        return None
    return b"".join(text).decode("utf-8", "replace")


def parse(form: ReplyFormat, text: str, hidden: tuple[str, ...], *, guaranteed: bool, begun: bool) -> list[ReplyEvent]:
    numbers = iter(range(1000))
    how = Reading(form, CallRules(SCHEMAS, guaranteed), begun, hidden)
    parser = ReplyParser(how, lambda _length: str(next(numbers)))
    return list(merged([*(event for character in text for event in parser.push(character)), *parser.finish()]))


def check(events: Sequence[ReplyEvent]) -> int:
    """Every call names a tool and fits its schema; how many there are."""
    names = [event.name for event in events if isinstance(event, ToolCallBegin)]
    arguments = ["" for _ in names]
    for event in events:
        if isinstance(event, ToolCallArguments):
            arguments[event.index] += event.text
    for name, text in zip(names, arguments, strict=True):
        jsonschema.validate(json.loads(text), SCHEMAS[name])
    return len(names)


def texts(events: Sequence[ReplyEvent], kind: type[ContentDelta] | type[ReasoningDelta]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


PAIRS = {"harmony": "harmony", "command-r": "command-r", "gemma": "gemma", "mistral-v11": "mistral", "seed": "seed"}


@pytest.mark.parametrize(("state", "as_tokens"), [("none", False), ("possible", True), ("begun", False)])
@pytest.mark.parametrize("mode", ["required", "named", "auto"])
@pytest.mark.parametrize("name", sorted(TABLE.calls))
def test_what_the_grammar_admits_is_read_back(
    name: str, mode: ToolChoiceMode, state: ReasoningState, as_tokens: bool
) -> None:
    form = ReplyFormat(TABLE.reasoning[PAIRS.get(name, "think")], TABLE.calls[name])
    special = tokens_of(form) if as_tokens else ()
    words = vocabulary(special)
    spec = reply_grammar(ReplyPlan(form, words.special_ids, state), conversation(mode), None)
    assert spec is not None
    grammar = words.compiler.compile_now(spec)
    ended = 0
    for seed in range(WALKS):
        text = walk(words, grammar, form, seed)
        if text is None:
            continue
        ended += 1
        events = parse(form, text, special, guaranteed=True, begun=state == "begun")
        assert events == parse(form, text, special, guaranteed=False, begun=state == "begun"), text
        count = check(events)
        if mode != "auto":
            assert count == 1 if mode == "named" else count >= 1, text
            assert texts(events, ContentDelta) == "", text
    assert ended >= 2


def plan(state: ReasoningState = "none", calls: str = "hermes") -> ReplyPlan:
    return ReplyPlan(ReplyFormat(TABLE.reasoning["think"], TABLE.calls[calls]), {}, state)


def admits(spec: GrammarSpec | None, text: str) -> bool:
    """Whether a grammar admits exactly this text."""
    assert spec is not None
    steps = Walk(vocabulary(()).compiler.compile_now(spec))
    return all(steps.accept(byte) for byte in text.encode()) and steps.accepting


NOW_CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def test_a_reply_that_nothing_binds_has_no_grammar() -> None:
    loose = replace(WEATHER, strict=False)
    assert reply_grammar(plan(), conversation("auto", [loose]), None) is None
    assert reply_grammar(plan(), conversation("none"), None) is None
    assert reply_grammar(plan("begun"), conversation("auto", []), None) is None


def test_a_bound_text_alone_keeps_its_grammar() -> None:
    spec = GrammarSpec.regex("[a-z]+")
    assert reply_grammar(plan(), conversation("auto", []), spec) == spec


def test_one_call_or_several() -> None:
    several = reply_grammar(plan(), conversation("required"), None)
    assert admits(several, NOW_CALL)
    assert admits(several, f"{NOW_CALL}\n{NOW_CALL}")
    one = reply_grammar(plan(), conversation("required", parallel=False), None)
    assert admits(one, NOW_CALL)
    assert not admits(one, f"{NOW_CALL}\n{NOW_CALL}")
    assert not admits(several, "Hello")
    assert not admits(several, "")


def test_a_named_tool_is_the_only_one() -> None:
    named = reply_grammar(plan(), conversation("named", [NOW, WEATHER]), None)
    assert admits(named, NOW_CALL)
    assert not admits(named, NOW_CALL.replace("now", "get_weather"))


def test_strict_tools_leave_content_free() -> None:
    auto = reply_grammar(plan(), conversation("auto"), None)
    assert admits(auto, "Anything <b>at</b> all { [")
    assert admits(auto, f"One moment. {NOW_CALL}")
    assert not admits(auto, '<tool_call>\n{"name": "then", "arguments": {}}\n</tool_call>')


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        (GrammarSpec.json_schema({"type": "integer"}), "12", "x"),
        (GrammarSpec.json_object(), '{"a": 1}', "[1]"),
        (GrammarSpec.regex("[a-z]+/[0-9]"), "abc/1", "abc"),
        (GrammarSpec.choice(["yes", "no/maybe"]), "no/maybe", "perhaps"),
        (GrammarSpec.grammar('start: "let " name\nname: /[a-z]+/'), "let x", "x"),
        (GrammarSpec.grammar('root ::= "a" [0-9]+'), "a12", "b"),
    ],
)
def test_a_bound_text_follows_the_reasoning(spec: GrammarSpec, good: str, bad: str) -> None:
    nothing = conversation("auto", [])
    begun = reply_grammar(plan("begun"), nothing, spec)
    assert admits(begun, f"Hm: {bad}</think>\n\n{good}")
    assert not admits(begun, good)
    assert not admits(begun, f"Hm</think>{bad}")
    possible = reply_grammar(plan("possible"), nothing, spec)
    assert admits(possible, good)
    assert admits(possible, f"<think>\nHm</think>\n{good}")
    assert not admits(possible, bad)


def test_a_bound_text_or_calls() -> None:
    both = reply_grammar(plan("begun"), conversation("auto"), GrammarSpec.json_schema({"type": "integer"}))
    assert admits(both, "Hm</think>12")
    assert admits(both, f"Hm</think>{NOW_CALL}")
    assert not admits(both, "Hm</think>Hello")


def test_a_tool_without_parameters_takes_none() -> None:
    spec = reply_grammar(plan(), conversation("required", [Tool("now")]), None)
    assert admits(spec, NOW_CALL)
    assert not admits(spec, NOW_CALL.replace("{}", '{"a": 1}'))


@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_kept_to_is_refused_for_strict_tools_only(strict: bool) -> None:
    schema = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]{3}$"}}}
    asked = conversation("required", [Tool("book", None, schema, strict)])
    assert reply_grammar(plan(), asked, None) is not None, "as JSON it can be kept to"
    if not strict:
        assert reply_grammar(plan(calls="qwen-coder"), asked, None) is not None
        return
    with pytest.raises(RequestError, match="`pattern` of a string") as caught:
        reply_grammar(plan(calls="qwen-coder"), asked, None)
    assert caught.value.param == "tools"


def test_references_within_a_schema_are_kept() -> None:
    schema = {
        "type": "object",
        "$defs": {"day": {"enum": ["mon", "tue"]}},
        "properties": {"day": {"$ref": "#/$defs/day"}},
        "required": ["day"],
    }
    for calls, good in (
        ("hermes", '<tool_call>\n{"name": "book", "arguments": {"day": "mon"}}\n</tool_call>'),
        ("olmo", '<function_calls>book(day="mon")</function_calls>'),
    ):
        spec = reply_grammar(plan(calls=calls), conversation("required", [Tool("book", None, schema, True)]), None)
        assert admits(spec, good)
        assert not admits(spec, good.replace("mon", "sun"))
