"""A SentencePiece model file: the pieces and the rules in it.

Owns the file's layout, which is a protocol buffer (`sentencepiece_model.proto`):

    ModelProto          1: pieces   2: trainer   3: normalizer
    SentencePiece       1: piece   2: score (float)   3: type
    TrainerSpec         3: model_type   24: treat_whitespace_as_suffix   40-43: unk_id, bos_id, eos_id, pad_id
    NormalizerSpec      2: precompiled_charsmap   3: add_dummy_prefix   4: remove_extra_whitespaces
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.pieces import Pieces, PieceType

_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_IDS = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}  # field number, default
_Value = int | bytes


@dataclass(frozen=True)
class SentencePieceModel:
    """A model file; `ids` has those of unk, bos, eos and pad that the vocabulary has."""

    pieces: Pieces
    ids: dict[str, int]


def read_model(path: Path) -> SentencePieceModel:
    """Reads a model file.

    Raises:
        ModelError: the file cannot be read, or is damaged.
        UnsupportedError: it is no SentencePiece model, or of a kind that Cupola does not know.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint="Download the checkpoint again.") from error
    try:
        fields = list(_fields(content))
        return _model(path, fields)
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise UnsupportedError(
            f"{path} is no SentencePiece model: {error}",
            hint="It may be a file of another library (such as tiktoken), or damaged; a tokenizer.json serves too.",
        ) from error


def _model(path: Path, fields: list[tuple[int, _Value]]) -> SentencePieceModel:
    entries = [_piece(_bytes(value)) for number, value in fields if number == 1]
    if not entries:
        raise ValueError("it has no pieces")
    trainer, normalizer = (_merged(fields, number) for number in (2, 3))
    kind = _MODEL_TYPES.get(_integer(trainer.get(3, 1)), "unknown")
    if kind not in ("unigram", "bpe"):
        raise UnsupportedError(
            f"{path} is a SentencePiece model of the type {kind!r}", hint="Cupola reads unigram, bpe."
        )
    if trainer.get(24):
        raise UnsupportedError(f"{path} writes spaces behind words (treat_whitespace_as_suffix)")
    ids = {name: _signed(trainer.get(number, default)) for name, (number, default) in _IDS.items()}
    ids = {name: i for name, i in ids.items() if 0 <= i < len(entries)}
    texts, scores, types = zip(*entries, strict=True)
    if len(set(texts)) != len(texts):
        raise ValueError("it has a piece twice")
    pieces = Pieces(
        texts=texts,
        scores=np.array(scores, np.float32),
        types=np.array(types),
        unknown=ids.get("unk"),
        unigram=kind == "unigram",
        characters=_bytes(normalizer.get(2, b"")),
        prefix="each" if normalizer.get(3, 1) else "never",
        merge_spaces=bool(normalizer.get(4, 1)),
    )
    return SentencePieceModel(pieces, ids)


def _piece(content: bytes) -> tuple[str, float, int]:
    values = dict(_fields(content))
    score = struct.unpack("<f", _bytes(values.get(2, bytes(4))))[0]
    return _bytes(values.get(1, b"")).decode(), score, PieceType(_integer(values.get(3, 1)))


def _merged(fields: list[tuple[int, _Value]], number: int) -> dict[int, _Value]:
    """The fields of a message, which may lie in several parts."""
    return {key: value for at, part in fields if at == number for key, value in _fields(_bytes(part))}


def _fields(content: bytes) -> Iterator[tuple[int, _Value]]:
    """(number, value) of each field: an integer, or the bytes of a string, a message or a fixed-size number."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        if key & 7 == 0:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            length, at = _varint(content, at)
        elif key & 7 in (1, 5):
            length = 8 if key & 7 == 1 else 4
        else:
            raise ValueError(f"it has a field of the wire type {key & 7}")
        if length > len(content) - at:
            raise ValueError("it ends within a field")
        yield key >> 3, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("it has a number of more than 64 bits")


def _signed(value: _Value) -> int:
    number = _integer(value)
    return number - (1 << 64) if number >> 63 else number


def _integer(value: _Value) -> int:
    if not isinstance(value, int):
        raise TypeError("it has bytes in place of a number")
    return value


def _bytes(value: _Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("it has a number in place of bytes")
    return value
