"""Grammars in C++: masks, progress, forced tokens, copies, and what cannot be compiled."""

from __future__ import annotations

import json
import random
import re

import jsonschema
import pytest

from cupola.engine import native_grammar
from cupola.engine.backends.scripted import EOS_ID, VOCAB_SIZE, byte_tokenizer
from cupola.engine.grammar import CompiledGrammar, GrammarSpec
from cupola.engine.native_grammar import GrammarTokenizer
from cupola.errors import EngineError, RequestError
from cupola.text.vocabulary import Vocabulary, read_vocabulary
from grammar_oracle import Walk, byte_compiler

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
LARK = 'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]{1,3}/'


def compiled(spec: GrammarSpec) -> CompiledGrammar:
    return byte_compiler().compile_now(spec)


def random_text(grammar: CompiledGrammar, seed: int, limit: int = 400) -> str:
    """Any text of the grammar, with each allowed token as probable as the others; it ends as soon as it may."""
    rng = random.Random(seed)
    walk = Walk(grammar)
    text = bytearray()
    while not walk.stopped and len(text) < limit:
        allowed = walk.allowed()
        assert allowed, "a grammar that goes on allows something"
        if EOS_ID in allowed and rng.random() < 0.5:
            return text.decode()
        token = rng.choice([token for token in allowed if token != EOS_ID])
        assert walk.accept(token)
        text.append(token)
    return text.decode()


@pytest.mark.parametrize("seed", range(8))
def test_every_path_through_a_schema_is_json_that_fits_it(seed: int) -> None:
    jsonschema.validate(json.loads(random_text(compiled(GrammarSpec.json_schema(PERSON)), seed)), PERSON)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("spec", "pattern"),
    [
        (GrammarSpec.regex(r"[a-z]{2,5}(-[0-9]+)?"), r"[a-z]{2,5}(-[0-9]+)?"),
        (GrammarSpec.grammar(LARK), r"\d{1,3}(\+\d{1,3})*"),
        (GrammarSpec.grammar('root ::= "x" [0-9]+ ("," [0-9]+)*'), r"x\d+(,\d+)*"),
        (GrammarSpec.choice(["yes", "yes, but", "no (really)", "é*"]), r"yes|yes, but|no \(really\)|é\*"),
    ],
)
def test_every_path_through_a_grammar_is_a_text_of_it(spec: GrammarSpec, pattern: str, seed: int) -> None:
    assert re.fullmatch(pattern, random_text(compiled(spec), seed))


def test_forced_tokens_are_those_that_masks_leave_no_choice_about() -> None:
    walk = Walk(compiled(GrammarSpec.json_schema(PERSON)))
    other = walk.fork()
    forced = walk.forced()
    assert bytes(forced) == b'{"name": "'
    for token in forced:
        assert other.allowed() == [token]
        assert other.accept(token)
    assert other.forced() == []
    assert len(other.allowed()) > 1


def test_forced_tokens_come_in_portions_if_asked_for() -> None:
    walk = Walk(compiled(GrammarSpec.json_schema(PERSON)))
    assert bytes(walk.forced(3)) == b'{"n'
    assert walk.forced(0) == []
    assert bytes(walk.forced()) == b'{"name": "'


def test_copies_go_their_own_ways() -> None:
    walk = Walk(compiled(GrammarSpec.regex("(ab|cd)+")))
    assert walk.accept(ord("a"))
    other = walk.fork()
    assert other.accept(ord("b"))
    assert walk.allowed() == [ord("b")]
    assert other.allowed() == [ord("a"), ord("c"), EOS_ID]
    assert not walk.accepting
    assert other.accepting


def test_a_token_that_is_not_allowed_is_refused_and_ends_the_walk() -> None:
    walk = Walk(compiled(GrammarSpec.regex("ab")))
    assert not walk.accept(ord("x"))
    assert walk.stopped
    with pytest.raises(ValueError, match="x"):
        walk.allowed()


def test_at_its_end_only_the_end_of_sequence_is_left() -> None:
    walk = Walk(compiled(GrammarSpec.regex("ab")))
    assert walk.accept(ord("a"))
    assert walk.accept(ord("b"))
    assert walk.stopped
    assert walk.accepting
    assert walk.allowed() == [EOS_ID]


def test_ids_beyond_the_tokens_are_never_allowed() -> None:
    vocabulary = read_vocabulary(byte_tokenizer(), VOCAB_SIZE + 77)
    tokenizer = GrammarTokenizer(vocabulary, [EOS_ID])
    spec = GrammarSpec.regex("(.|\n)*")
    walk = Walk(CompiledGrammar(spec, tokenizer.compile("regex", spec.text)))
    assert max(walk.allowed()) == EOS_ID


def test_any_of_several_end_of_sequence_tokens_ends_a_text() -> None:
    tokenizer = GrammarTokenizer(read_vocabulary(byte_tokenizer(), VOCAB_SIZE), [EOS_ID, EOS_ID - 1])
    walk = Walk(CompiledGrammar(GrammarSpec.regex("a*"), tokenizer.compile("regex", "a*")))
    assert walk.allowed() == [ord("a"), EOS_ID - 1, EOS_ID]
    assert walk.accept(EOS_ID - 1)
    assert walk.stopped


def test_the_name_of_a_special_token_is_not_text() -> None:
    walk = Walk(compiled(GrammarSpec.regex(r"<\|im_end\|>")))
    assert bytes(walk.forced()) == b"<|im_end|>"


def test_a_vocabulary_that_is_not_of_byte_pairs_forces_nothing() -> None:
    tokens = (*(bytes([byte]) for byte in range(256)), b"\xff<eos>")
    tokenizer = GrammarTokenizer(Vocabulary(tokens, byte_pairs=False, words=False), [256])
    walk = Walk(CompiledGrammar(GrammarSpec.regex("abc"), tokenizer.compile("regex", "abc")))
    assert walk.forced() == []
    assert walk.allowed() == [ord("a")]


def merging(*words: bytes, space_begins_word: bool = True) -> GrammarTokenizer:
    tokens = (*(bytes([byte]) for byte in range(256)), *words, b"\xff<eos>")
    return GrammarTokenizer(Vocabulary(tokens, byte_pairs=True, words=space_begins_word), [len(tokens) - 1])


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (b"abc", [b"ab", b"c"]),  # (a, b) was merged before (b, c)
        (b"xbc", [b"x", b"bc"]),
        (b" ab  ab", [b" ab", b" ", b" ab"]),  # the last space belongs to the word
        (b"  1", [b"  ", b"1"]),  # but not where no token joins it
        ("é".encode(), ["é".encode()]),
        (b"\xc3(\xfe", [b"\xc3", b"(", b"\xfe"]),
        (b"", []),
        (b"ab" * 2000, [b"ab"] * 2000),
    ],
)
def test_forced_text_is_written_as_the_merges_write_it(text: bytes, pieces: list[bytes]) -> None:
    words = (b"ab", b"bc", b" a", b" ab", b"  ", "é".encode())
    ids = {bytes([byte]): byte for byte in range(256)} | {word: 256 + i for i, word in enumerate(words)}
    assert merging(*words).encode(text) == [ids[piece] for piece in pieces]


@pytest.mark.parametrize(
    "spec",
    [
        GrammarSpec.json_schema("{"),
        GrammarSpec.json_schema('["a"]'),
        GrammarSpec.json_schema({"type": "thing"}),
        GrammarSpec.json_schema({"type": "string", "not": {"const": "a"}}),
        GrammarSpec.json_schema({"$ref": "#"}),
        GrammarSpec.json_schema({"$ref": "http://example.com/schema.json"}),
        GrammarSpec.json_schema(False),
        GrammarSpec.json_schema('{"items":' * 20_000 + "{}" + "}" * 20_000),
        GrammarSpec.regex("("),
        GrammarSpec.regex("(?=a)b"),
        GrammarSpec.regex("a\0b"),
        GrammarSpec.regex("\ud800"),
        GrammarSpec.regex(""),
        GrammarSpec.choice([]),
        GrammarSpec.choice(["a", ""]),
        GrammarSpec.choice(["a\0b"]),
        GrammarSpec.choice(["\ud800"]),
        GrammarSpec.grammar("start: nothing"),
        GrammarSpec.grammar("start: a\na: a"),
        GrammarSpec.grammar("root ::= ("),
        GrammarSpec.regex("a" * (1 << 21)),
    ],
)
def test_what_is_no_grammar_is_refused_with_its_reason(spec: GrammarSpec) -> None:
    with pytest.raises(RequestError) as caught:
        compiled(spec)
    assert caught.value.param == "grammar"
    assert caught.value.code in ("invalid_schema", "invalid_grammar")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_without_llguidance_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(native_grammar.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EngineError, match="llguidance was not found"):
        compiled(GrammarSpec.regex("a"))
    monkeypatch.setattr(native_grammar, "_library", lambda: f"{tmp_path}/no.so")
    with pytest.raises(EngineError, match=r"no\.so"):
        compiled(GrammarSpec.regex("a"))


def test_another_library_is_not_taken_for_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_grammar, "_library", lambda: "libm.so.6")
    with pytest.raises(EngineError, match="it lacks llg_get_version"):
        compiled(GrammarSpec.regex("a"))
