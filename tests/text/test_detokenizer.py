"""Cutting ids into pieces never changes the text; stop strings are found wherever they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers_for_tests import SPECIAL, byte_fallback, byte_level, metaspace

from cupola.text.detokenizer import Detokenizer, decode
from cupola.text.tokenizer import Tokenizer

TOKENIZERS = {
    "byte_level": Tokenizer(byte_level()),
    "byte_fallback": Tokenizer(byte_fallback()),
    "metaspace": Tokenizer(metaspace("first")),
}
BYTES = TOKENIZERS["byte_level"]


def cut_before_stop(text: str, stop: list[str]) -> tuple[str, bool]:
    """The oracle: cut before the stop string that is complete first (of several, the longest)."""
    for end in range(len(text) + 1):
        ending = [s for s in stop if text[:end].endswith(s)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


def run(tokenizer: Tokenizer, pieces: list[list[int]], stop: list[str]) -> tuple[str, bool, int]:
    """The text, whether it stopped, and how many ids were used."""
    detokenizer = Detokenizer(tokenizer, stop)
    text, used = "", 0
    for ids in pieces:
        piece = detokenizer.push(ids)
        text, used = text + piece.text, used + piece.tokens
        if piece.stop is not None:
            return text, True, used
    tail = detokenizer.finish()
    return text + tail.text, tail.stop is not None, used


@st.composite
def cut_ids(draw: st.DrawFn, tokenizer: Tokenizer) -> list[list[int]]:
    ids = draw(st.lists(st.integers(0, tokenizer.vocab_size), max_size=40))
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=8)))
    return [ids[a:b] for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(data=st.data())
def test_any_cut_gives_the_text_of_all_ids(kind: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[kind]
    pieces = data.draw(cut_ids(tokenizer))
    ids = [token_id for piece in pieces for token_id in piece]
    assert run(tokenizer, pieces, []) == (decode(tokenizer, ids), False, len(ids))


@given(
    text=st.text("abäöb🙂\n", max_size=30),
    stop=st.lists(st.text("abäö🙂\n", min_size=1, max_size=4), max_size=4),
    data=st.data(),
)
def test_the_text_ends_before_the_stop_string_that_is_complete_first(
    text: str, stop: list[str], data: st.DataObject
) -> None:
    ids = BYTES.encode(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=8)))
    pieces = [ids[a:b] for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    expected, stopped = cut_before_stop(text, stop)
    assert run(BYTES, pieces, stop)[:2] == (expected, stopped)
    assert run(BYTES, [[token_id] for token_id in ids], stop)[:2] == (expected, stopped)


@given(text=st.text("abc", max_size=30), stop=st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=3))
def test_no_more_is_held_back_than_could_be_a_stop_string(text: str, stop: list[str]) -> None:
    detokenizer = Detokenizer(BYTES, stop)
    given_out = ""
    for index, token_id in enumerate(text.encode()):
        piece = detokenizer.push([token_id])
        given_out += piece.text
        if piece.stop is not None:
            return
        so_far = text[: index + 1]
        held = so_far[len(given_out) :]
        assert so_far.startswith(given_out)
        assert held == "" or any(s.startswith(held) for s in stop)
        longer = [so_far[-n:] for n in range(len(held) + 1, len(so_far) + 1)]
        assert not any(s.startswith(end) for s in stop for end in longer)


def test_an_incomplete_character_waits_and_a_complete_one_does_not() -> None:
    detokenizer = Detokenizer(BYTES)
    assert [detokenizer.push([byte]).text for byte in "é🙂".encode()] == ["", "é", "", "", "", "🙂"]


def test_what_is_incomplete_at_the_end_becomes_a_replacement_character() -> None:
    detokenizer = Detokenizer(BYTES)
    assert detokenizer.push(list("🙂".encode()[:3])).text == ""
    assert detokenizer.finish().text == "�"
    assert detokenizer.finish().text == ""


def test_ids_after_a_stop_string_are_not_counted() -> None:
    detokenizer = Detokenizer(BYTES, ["cd"])
    piece = detokenizer.push(list(b"abcdef"))
    assert (piece.text, piece.tokens, piece.stop) == ("ab", 4, "cd")


def test_a_stop_string_may_end_with_the_text() -> None:
    """The last character is complete only when the ids end: an invalid byte, which is asked for as a stop."""
    detokenizer = Detokenizer(BYTES, ["x�"])
    assert detokenizer.push([ord("a"), ord("x"), 0xF0]).text == "a"
    tail = detokenizer.finish()
    assert (tail.text, tail.stop) == ("", "x�")


def test_special_tokens_do_not_end_the_beginning_of_a_text() -> None:
    """The space before the first word is dropped, whatever special tokens come before it."""
    tokenizer = TOKENIZERS["metaspace"]
    special = tokenizer.token_id(SPECIAL)
    word = tokenizer.token_id("▁a")
    assert special is not None
    assert word is not None
    assert decode(tokenizer, [special, word, word]) == "a a"
