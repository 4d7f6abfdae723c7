"""A vocabulary of SentencePiece, wherever it came from, as an object of the `tokenizers` library.

Owns the rules of SentencePiece in terms of that library: how a text is normalized, which pieces may come out, how
tokens become text again. `sentencepiece_model` reads such a vocabulary from a file of its own, `gguf_tokenizer` from
GGUF.

Known differences from SentencePiece itself: the library replaces characters by whole grapheme clusters where there is a
map of characters; it finds special tokens in a text, and those and user-defined ones (of BPE) before it normalizes, so
that a prefix stands behind them too; and pieces that are marked as unused are no steps on the way to longer ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

from cupola.weights.character_map import check_characters

SPACE = "\u2581"  # how SentencePiece writes a space
_NEVER = "\ufffe"  # no character: a piece with it matches no text


class PieceType(IntEnum):
    """What a token is for; GGUF has the numbers of SentencePiece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Pieces:
    """A vocabulary and what is done to a text before it is cut.

    Args:
        texts, scores, types: of each token; scores float32, types `PieceType`.
        unknown: the id for what cannot be written; None: nothing is.
        unigram: the cut with the highest sum of scores, else merges by score (BPE).
        characters: SentencePiece's map of characters, as its files have it; empty: none.
        prefix: a text begins with a space; "each": behind a special token too, "first": at its start alone, "never".
        merge_spaces: several spaces are one, and none stand at the ends.
    """

    texts: Sequence[str]
    scores: np.ndarray
    types: np.ndarray
    unknown: int | None
    unigram: bool
    characters: bytes = b""
    prefix: str = "each"
    merge_spaces: bool = False

    def ids_of(self, *types: PieceType) -> list[int]:
        """The tokens of these types, in order."""
        return [int(i) for i in np.flatnonzero(np.isin(self.types, types))]


def build(pieces: Pieces) -> Tokenizer:
    """The tokenizer, with its special and user-defined tokens, but nothing put around a text.

    Raises:
        ModelError: the map of characters is damaged; what else is inconsistent raises what the library raises.
    """
    tokenizer = Tokenizer(_unigram(pieces) if pieces.unigram else _bpe(pieces))
    steps = _normalizers(pieces)
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    if pieces.prefix == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    ends = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(ends if pieces.prefix == "never" else [*ends, decoders.Strip(" ", 1, 0)])
    add_tokens(tokenizer, (pieces.texts[i] for i in pieces.ids_of(PieceType.CONTROL, PieceType.UNKNOWN)), special=True)
    add_tokens(tokenizer, _found_first(pieces, tokenizer), special=False)
    return tokenizer


def _found_first(pieces: Pieces, tokenizer: Tokenizer) -> list[str]:
    """The user-defined tokens that must be found before a text is normalized.

    A unigram model finds by their scores those that normalizing leaves as they are, and that without cutting the text.
    """
    texts = [pieces.texts[i] for i in pieces.ids_of(PieceType.USER_DEFINED)]
    if not pieces.unigram or tokenizer.normalizer is None:
        return texts
    return [text for text in texts if tokenizer.normalizer.normalize_str(text).removeprefix(SPACE) != text]


def add_tokens(tokenizer: Tokenizer, texts: Iterable[str], *, special: bool) -> None:
    """Makes tokens of the vocabulary ones that are found in a text before anything else is done to it."""
    tokens = [AddedToken(text, special=special, normalized=False) for text in texts]
    if special:
        tokenizer.add_special_tokens(tokens)
    else:
        tokenizer.add_tokens(tokens)


def put_around(tokenizer: Tokenizer, before: Sequence[str], after: Sequence[str], between: Sequence[str]) -> None:
    """Special tokens around a text; `between` stands before the second of two, which has `after` behind it as well."""
    names = dict.fromkeys((*before, *between, *after))
    if names:
        second = [f"{token}:1" for token in (*between, "$B", *after)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *second],
            special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
        )


def _normalizers(pieces: Pieces) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if pieces.characters:
        check_characters(pieces.characters)
        steps.append(normalizers.Precompiled(pieces.characters))
    if pieces.merge_spaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if pieces.prefix == "each":
        steps.append(normalizers.Prepend(SPACE))
    if pieces.prefix != "first":
        steps.append(normalizers.Replace(" ", SPACE))
    return steps


def _unigram(pieces: Pieces) -> Unigram:
    """Types decide what may come out of a text: what may not gets a score, or a text, that never wins."""
    normal = pieces.scores[pieces.types == PieceType.NORMAL]
    lowest = float(normal.min(initial=0.0))
    texts = list(pieces.texts)
    scores = [float(score) for score in pieces.scores]
    for i in pieces.ids_of(PieceType.USER_DEFINED):
        scores[i] = 0.0
    for i in pieces.ids_of(PieceType.UNUSED):
        texts[i] = f"{_NEVER}{texts[i]}"
    for i in pieces.ids_of(PieceType.BYTE):  # six characters of text are no byte
        scores[i] = 8 * lowest - 1
    fallback = bool(pieces.ids_of(PieceType.BYTE))
    return Unigram(list(zip(texts, scores, strict=True)), unk_id=pieces.unknown, byte_fallback=fallback)


def _bpe(pieces: Pieces) -> BPE:
    return BPE(
        vocab={text: i for i, text in enumerate(pieces.texts)},
        merges=_merges_by_score(pieces),
        unk_token=None if pieces.unknown is None else pieces.texts[pieces.unknown],
        fuse_unk=True,
        byte_fallback=bool(pieces.ids_of(PieceType.BYTE)),
    )


def _merges_by_score(pieces: Pieces) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, the pieces of high score first."""
    mergeable: Mapping[str, int] = {pieces.texts[i]: i for i in pieces.ids_of(PieceType.NORMAL, PieceType.USER_DEFINED)}
    merges: list[tuple[float, str, str]] = []
    for piece, i in mergeable.items():
        cuts = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        pairs = [(left, right) for left, right in cuts if left in mergeable and right in mergeable]
        pairs.sort(key=lambda pair: (mergeable[pair[0]], mergeable[pair[1]]))
        merges.extend((float(pieces.scores[i]), left, right) for left, right in pairs)
    merges.sort(key=lambda merge: -merge[0])
    return [(left, right) for _, left, right in merges]
