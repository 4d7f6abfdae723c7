"""Encoding is that of `tokenizers`; decoding by bytes gives what its `decode` gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers.decoders import WordPiece
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing
from tokenizers_for_tests import PLAIN_ADDED, SPECIAL, UNSUPPORTED, byte_fallback, byte_level, metaspace, with_decoder

from cupola.errors import ModelError, UnsupportedError
from cupola.text.detokenizer import decode
from cupola.text.tokenizer import Tokenizer

KINDS = {
    "byte_level": byte_level(),
    "byte_fallback": byte_fallback(),
    "metaspace_always": metaspace("always"),
    "metaspace_first": metaspace("first"),
    "metaspace_never": metaspace("never"),
}


def ids_of(tokenizer: HfTokenizer) -> st.SearchStrategy[list[int]]:
    # One beyond the vocabulary: a model's rows of logits may be more than its tokens.
    return st.lists(st.integers(0, tokenizer.get_vocab_size(with_added_tokens=True)), max_size=40)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_decode_is_that_of_the_library(kind: str, data: st.DataObject) -> None:
    library = KINDS[kind]
    ids = data.draw(ids_of(library))
    expected = library.decode(ids, skip_special_tokens=True)
    if kind == "byte_fallback" and "�" in expected:
        # The library gives up a whole run of bytes for one that is invalid; see the test below.
        return
    assert decode(Tokenizer(library), ids) == expected


def test_an_invalid_byte_costs_one_character_not_the_whole_run() -> None:
    tokenizer = Tokenizer(byte_fallback())
    assert decode(tokenizer, [*"日".encode(), 0xE6]) == "日�"


@given(text=st.text())
def test_texts_survive_the_way_to_ids_and_back(text: str) -> None:
    tokenizer = Tokenizer(byte_level())
    assert decode(tokenizer, tokenizer.encode(text)) == text.replace(SPECIAL, "")


def test_a_lone_surrogate_is_replaced_and_not_an_error() -> None:
    tokenizer = Tokenizer(byte_level())
    assert decode(tokenizer, tokenizer.encode("a\ud83db")) == "a?b"


def test_special_tokens_have_no_text_and_added_ones_do() -> None:
    tokenizer = Tokenizer(byte_level())
    special, added = tokenizer.token_id(SPECIAL), tokenizer.token_id(PLAIN_ADDED)
    assert special is not None
    assert added is not None
    assert tokenizer.special_ids == {special}
    assert tokenizer.token_bytes(special) == b""
    assert tokenizer.token_bytes(added) == PLAIN_ADDED.encode()
    assert tokenizer.encode(f"a{SPECIAL}{PLAIN_ADDED}") == [97, special, added]


def test_unknown_ids_and_tokens_are_nothing() -> None:
    tokenizer = Tokenizer(byte_level())
    assert tokenizer.token(10**6) is None
    assert tokenizer.token_id("no such token") is None
    assert tokenizer.token_bytes(10**6) == b""
    assert tokenizer.vocab_size == 256 + 6 + 2


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path: Path) -> None:
    library = byte_level()
    library.enable_truncation(3)
    library.enable_padding(length=10)
    library.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").encode("abcdef") == list(b"abcdef")


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_decoders_are_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedError, match=name):
        Tokenizer(with_decoder(UNSUPPORTED[name]))


def test_a_missing_or_broken_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ModelError, match="is not a tokenizer"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_pairs_are_cut_as_the_library_cuts_them() -> None:
    """Against the library's own truncation of pairs, on a tokenizer of words that puts tokens around them."""
    hf = HfTokenizer(WordLevel({"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "a": 3, "b": 4}, unk_token="[UNK]"))
    hf.pre_tokenizer = Whitespace()
    hf.decoder = WordPiece()
    hf.post_processor = BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    tokenizer, oracle = Tokenizer(HfTokenizer.from_str(hf.to_str())), HfTokenizer.from_str(hf.to_str())
    pairs = [("a " * n, "b " * m) for n, m in ((1, 1), (3, 30), (30, 3), (20, 21), (21, 20), (40, 40), (9, 9))]
    for limit in (3, 8, 9, 20, 21, 100):
        oracle.enable_truncation(limit, strategy="longest_first")
        theirs = [(found.ids, found.type_ids) for found in oracle.encode_batch(pairs)]
        assert tokenizer.encode_pairs(pairs, limit) == theirs
    (ids, types), *_ = tokenizer.encode_pairs([("a", "b b b b")], second_limit=2)
    assert (ids, types) == ([0, 3, 1, 4, 4, 1], [0, 0, 0, 1, 1, 1])
