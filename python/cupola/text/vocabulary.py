"""A tokenizer's vocabulary as bytes: what grammars have to know of it. Owns nothing, knows no grammar."""

from __future__ import annotations

from dataclasses import dataclass

from cupola.text.tokenizer import Tokenizer

SPECIAL_MARK = b"\xff"
"""Before the name of a special token, so that no text can be taken for it: UTF-8 has no such byte."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What each token id adds to a text.

    Args:
        tokens: by id; a special token is its name after SPECIAL_MARK, an id without a token is empty.
        byte_pairs: its tokens were made by merging byte pairs, in the order of their ids.
        words: a space begins a word, and no token goes beyond one.
    """

    tokens: tuple[bytes, ...]
    byte_pairs: bool
    words: bool


def read_vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """The first `size` ids, which may be more than there are tokens."""
    return Vocabulary(
        tokens=tuple(_spelling(tokenizer, token_id) for token_id in range(size)),
        byte_pairs=tokenizer.byte_pairs,
        words=tokenizer.decoder_rules.byte_level,
    )


def _spelling(tokenizer: Tokenizer, token_id: int) -> bytes:
    if token_id in tokenizer.special_ids:
        return SPECIAL_MARK + (tokenizer.token(token_id) or "").encode()
    return tokenizer.token_bytes(token_id)
