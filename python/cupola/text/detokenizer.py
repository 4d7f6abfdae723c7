"""Token ids to text, piece by piece, with stop strings.

The pieces, put together, are the text of all ids, cut before the stop string that is complete first; where the
ids were cut into pieces makes no difference. Nothing is given out that could still change: an incomplete UTF-8
character waits, and so does the longest end of the text that could be the start of a stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from cupola.text.tokenizer import Tokenizer


class Piece(NamedTuple):
    """What one call gave. A tuple: there is one for every token, and tuples are made faster.

    Args:
        text: new text.
        tokens: how many of the given ids were used; fewer than given if a stop string was complete before the end.
        stop: the stop string that was found; nothing may be pushed after it.
    """

    text: str
    tokens: int
    stop: str | None = None


class Detokenizer:
    """The text of one sequence of token ids.

    Args:
        tokenizer: the model's tokenizer.
        stop: strings that end the text and are not part of it; none of them is empty.
        shown: special tokens that are part of the text, as the vocabulary writes them; the others have none.
    """

    __slots__ = ("_decoder", "_first", "_held", "_settled", "_shown", "_stop", "_strip", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), shown: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._shown = frozenset(shown)
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # decoded, but possibly the start of a stop string
        self._first = True
        self._strip = tokenizer.decoder_rules.strip_start
        self._settled = False  # what a token adds depends on no token before it

    def push(self, token_ids: Sequence[int]) -> Piece:
        """Add ids; gives the text that is certain now."""
        text = ""
        for index, token_id in enumerate(token_ids):
            added = self._text(token_id)
            if not self._stop:
                text += added
                continue
            certain, stop = self._certain(added)
            text += certain
            if stop is not None:
                return Piece(text, index + 1, stop)
        return Piece(text, len(token_ids))

    def finish(self) -> Piece:
        """No more ids: gives the text that was held back. An incomplete character becomes U+FFFD."""
        certain, stop = self._certain(self._decoder.decode(b"", final=True))
        rest = self._held if stop is None else ""
        self._held = ""
        return Piece(certain + rest, 0, stop)

    def _text(self, token_id: int) -> str:
        """What a token adds to the text; the most frequent case first, and without bytes."""
        if self._settled and token_id not in self._shown:
            text = self._tokenizer.token_text(token_id)
            if text is not None:
                return text
        text = self._decoder.decode(self._bytes(token_id))
        incomplete, _ = self._decoder.getstate()
        self._settled = not (incomplete or self._first or self._strip)
        return text

    def _bytes(self, token_id: int) -> bytes:
        if token_id in self._shown:
            return self._tokenizer.shown_bytes(token_id)
        if not self._first:
            data = self._tokenizer.token_bytes(token_id)
        else:
            data = self._tokenizer.first_token_bytes(token_id)
            self._first = not self._tokenizer.is_text(token_id)
        while self._strip and data:
            # Some tokenizers put spaces before the whole text, which may be spread over several tokens.
            if not data.startswith(b" "):
                self._strip = 0
                break
            data = data[1:]
            self._strip -= 1
        return data

    def _certain(self, text: str) -> tuple[str, str | None]:
        """Text that is not held back, given that `text` follows; and the stop string that is complete."""
        if not self._stop:
            return text, None
        held = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := held.find(stop)) >= 0]
        if found:
            self._held = ""
            _, at, stop = min(found)
            return held[:at], stop
        keep = max(overlap(held, stop) for stop in self._stop)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], None


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a start of `stop`, but not all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def decode(tokenizer: Tokenizer, token_ids: Iterable[int]) -> str:
    """The text of a whole sequence of ids, special tokens left out."""
    detokenizer = Detokenizer(tokenizer)
    return detokenizer.push(tuple(token_ids)).text + detokenizer.finish().text
