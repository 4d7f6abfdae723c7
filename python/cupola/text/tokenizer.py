"""Text to token ids, and a token id to its bytes.

Encoding is Hugging Face `tokenizers`. Decoding goes through the bytes of each token, because the text of a
stream must not depend on where the stream is cut; `cupola.text.detokenizer` puts the bytes together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as HfTokenizer
from tokenizers.models import BPE

from cupola.errors import ModelError, UnsupportedError

_SUPPORTED_DECODERS = "ByteLevel, WordPiece, Metaspace, or a sequence of Replace, ByteFallback, Fuse, Strip"


@dataclass(frozen=True, slots=True)
class DecoderRules:
    """How tokens become text.

    Args:
        byte_level: a token's characters stand for bytes, as in GPT-2.
        replacements: (pattern, content) pairs, applied to each token in order.
        byte_fallback: tokens such as `<0x0A>` are single bytes.
        strip_start: this many spaces are dropped from the start of the whole text.
        drop_first: each of this character is dropped from the first token (Metaspace).
        continuation: tokens that begin with it go on with a word, all others begin one (WordPiece); "": no such rule.
    """

    byte_level: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    strip_start: int = 0
    drop_first: str = ""
    continuation: str = ""


def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others are moved up beyond 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table


BYTE_OF_CHARACTER = _byte_of_character()


class Tokenizer:
    """A model's tokenizer. Immutable; safe to use from several threads.

    Args:
        tokenizer: an instance of `tokenizers.Tokenizer`.

    Raises:
        UnsupportedError: its decoder is of a kind whose tokens have no bytes of their own.
    """

    def __init__(self, tokenizer: HfTokenizer) -> None:
        self._tokenizer = tokenizer
        # A prompt's length is the engine's business; a tokenizer.json may come with training-time settings.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._rules = _decoder_rules(json.loads(tokenizer.to_str()).get("decoder"))
        added = tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._bytes: dict[int, bytes] = {}
        self._texts: dict[int, str | None] = {}

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read a tokenizer.json. ModelError: it is missing or is not one."""
        if not path.is_file():
            raise ModelError(f"The tokenizer `{path}` does not exist", hint="Compile the model again.")
        try:
            return cls(HfTokenizer.from_file(str(path)))
        except UnsupportedError:
            raise
        except Exception as error:  # `tokenizers` raises plain Exception
            raise ModelError(f"`{path}` is not a tokenizer: {error}", hint="Compile the model again.") from error

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id, added tokens included."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens; they have no text."""
        return self._special_ids

    @property
    def decoder_rules(self) -> DecoderRules:
        """How this tokenizer's tokens become text."""
        return self._rules

    @property
    def byte_pairs(self) -> bool:
        """Whether its tokens were made by merging pairs, the way most models' are."""
        return isinstance(self._tokenizer.model, BPE)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text. Special tokens written in it count as such, as in Hugging Face tokenizers.

        `add_special_tokens` adds what the tokenizer puts around a sequence (for many models: the bos token).
        """
        text = _encodable(text)
        # Unlike `encode`, `encode_batch` gives up the GIL.
        ids: list[int] = self._tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)[0].ids
        return ids

    def encode_all(self, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
        """The ids of many texts, with what the tokenizer puts around each; a `limit` cuts them at their ends."""
        clean = [_encodable(text) for text in texts]
        if limit is None:
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(clean)]
        room = max(limit - self._tokenizer.num_special_tokens_to_add(is_pair=False), 0)
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        for encoding in encodings:
            encoding.truncate(room)
        return [self._tokenizer.post_process(encoding).ids[:limit] for encoding in encodings]

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], limit: int | None = None, second_limit: int | None = None
    ) -> list[tuple[list[int], list[int]]]:
        """The ids and the token types of pairs of texts, with what the tokenizer puts around them.

        Args:
            limit: of all tokens; the longer text of a pair loses tokens at its end until both fit, as in Hugging Face
                tokenizers' `longest_first`.
            second_limit: of the second text's own, which is cut before.
        """
        clean = [(_encodable(first), _encodable(second)) for first, second in pairs]
        if second_limit is not None:
            return [self._cut_pair(pair, limit, second_limit) for pair in clean]
        encodings = self._tokenizer.encode_batch(clean)
        return [
            (found.ids, found.type_ids) if limit is None or len(found) <= limit else self._cut_pair(pair, limit, None)
            for pair, found in zip(clean, encodings, strict=True)
        ]

    def _cut_pair(
        self, pair: tuple[str, str], limit: int | None, second_limit: int | None
    ) -> tuple[list[int], list[int]]:
        first, second = self._tokenizer.encode_batch(list(pair), add_special_tokens=False)
        if second_limit is not None:
            second.truncate(second_limit)
        if limit is not None:
            room = max(limit - self._tokenizer.num_special_tokens_to_add(is_pair=True), 0)
            lengths = _longest_first(len(first), len(second), room)
            first.truncate(lengths[0])
            second.truncate(lengths[1])
        if self._tokenizer.post_processor is None:  # it is what gives tokens their types
            return [*first.ids, *second.ids], [0] * len(first) + [1] * len(second)
        encoding = self._tokenizer.post_process(first, second)
        return encoding.ids[:limit], encoding.type_ids[:limit]

    def token(self, token_id: int) -> str | None:
        """The token as the vocabulary writes it; None for an id that is not in it."""
        token: str | None = self._tokenizer.id_to_token(token_id)
        return token

    def token_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it."""
        token_id: int | None = self._tokenizer.token_to_id(token)
        return token_id

    def is_text(self, token_id: int) -> bool:
        """Whether a token counts as part of the text: special tokens and unknown ids do not."""
        return token_id not in self._special_ids and self._tokenizer.id_to_token(token_id) is not None

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to the text, in UTF-8; not necessarily whole characters.

        Empty for special tokens and for ids that are not in the vocabulary.
        """
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._find_bytes(token_id)
        return found

    def token_text(self, token_id: int) -> str | None:
        """`token_bytes` as text; None where they are not whole characters."""
        try:
            return self._texts[token_id]
        except KeyError:
            pass
        try:
            text: str | None = self.token_bytes(token_id).decode()
        except UnicodeDecodeError:
            text = None
        self._texts[token_id] = text
        return text

    def shown_bytes(self, token_id: int) -> bytes:
        """`token_bytes`, but special tokens are shown as the vocabulary writes them."""
        if token_id in self._special_ids:
            return (self.token(token_id) or "").encode()
        return self.token_bytes(token_id)

    def word_ids(self, word: str) -> list[list[int]]:
        """The ways in which a word may stand in a text, as token ids: at its start, and after a space."""
        bare = word.lstrip(" ")
        ways = [self.encode(text, add_special_tokens=False) for text in (bare, f" {bare}")]
        return [way for i, way in enumerate(ways) if way and way not in ways[:i]]

    def first_token_bytes(self, token_id: int) -> bytes:
        """`token_bytes` for the first token of a text, where some tokenizers drop the space they put before it."""
        token = self._tokenizer.id_to_token(token_id)
        if self._rules.drop_first and token is not None and token_id not in self._special_ids:
            return self._apply_rules(token.replace(self._rules.drop_first, ""))
        return self.token_bytes(token_id)

    def _find_bytes(self, token_id: int) -> bytes:
        if token_id in self._special_ids:
            return b""
        token = self._tokenizer.id_to_token(token_id)
        return b"" if token is None else self._apply_rules(token)

    def _apply_rules(self, token: str) -> bytes:
        if self._rules.byte_level:
            try:
                return bytes([BYTE_OF_CHARACTER[character] for character in token])
            except KeyError:  # an added token is written as plain text
                return token.encode()
        for pattern, content in self._rules.replacements:
            token = token.replace(pattern, content)
        if self._rules.continuation:
            continued = token.startswith(self._rules.continuation)
            token = token.removeprefix(self._rules.continuation) if continued else f" {token}"
        if self._rules.byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass
        return token.encode()


def _encodable(text: str) -> str:
    """A lone surrogate (half of a broken emoji from JSON) has no UTF-8 and would be refused."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """The lengths that two texts keep: the longer one is cut first, then both to halves."""
    short, long = sorted((first, second))
    long = max(short, room - short) if short + long > room else long
    if short + long > room:
        short, long = room // 2, room - room // 2
    return (short, long) if first <= second else (long, short)


def _decoder_rules(decoder: dict[str, object] | None) -> DecoderRules:
    """What a tokenizer.json's decoder does, as rules. UnsupportedError: it does something else."""
    steps = _steps(decoder)
    kinds = [str(step.get("type")) for step in steps]
    if kinds == ["ByteLevel"]:
        return DecoderRules(byte_level=True)
    if kinds == ["WordPiece"]:
        # Its clean-up of spaces before punctuation looks at a whole text, which a stream does not have.
        return DecoderRules(continuation=str(steps[0].get("prefix", "##")), strip_start=1)
    if kinds == ["Metaspace"]:
        mark = str(steps[0].get("replacement", "▁"))
        drop = "" if steps[0].get("prepend_scheme") == "never" else mark
        return DecoderRules(replacements=((mark, " "),), drop_first=drop)
    replacements: list[tuple[str, str]] = []
    byte_fallback, fused, strip_start = False, False, 0
    for kind, step in zip(kinds, steps, strict=True):
        match kind, step:
            case "Replace", {"pattern": {"String": str(pattern)}, "content": str(content)} if not byte_fallback:
                replacements.append((pattern, content))
            case "ByteFallback", _:
                byte_fallback = True
            case "Fuse", _:
                fused = True
            case "Strip", {"content": " ", "start": int(start), "stop": 0} if fused:
                strip_start = start
            case _:
                raise _unsupported(kind)
    if not steps:
        raise _unsupported("none")
    return DecoderRules(replacements=tuple(replacements), byte_fallback=byte_fallback, strip_start=strip_start)


def _steps(decoder: dict[str, object] | None) -> Sequence[dict[str, object]]:
    match decoder:
        case None:
            return []
        case {"type": "Sequence", "decoders": list(decoders)}:
            return decoders
        case _:
            return [decoder]


def _unsupported(kind: str) -> UnsupportedError:
    return UnsupportedError(
        f"The tokenizer's decoder `{kind}` is not supported, or not in this place",
        hint=f"Supported decoders: {_SUPPORTED_DECODERS}.",
    )
