"""The tokenizer of a Hugging Face folder that has a SentencePiece model, but no tokenizer.json.

Owns what the folder's JSON files add to the model: more tokens, other names for its own, what stands around a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer

from cupola.errors import ModelError
from cupola.weights.folder_files import read_json_if_there
from cupola.weights.pieces import Pieces, PieceType, put_around
from cupola.weights.pieces import build as build_pieces
from cupola.weights.safetensors_files import HINT_AGAIN
from cupola.weights.sentencepiece_model import SentencePieceModel, read_model

MODELS = ("tokenizer.model", "spiece.model")
_ADDED = "added_tokens.json"
_SPECIAL = "special_tokens_map.json"
FILES = (*MODELS, _ADDED, _SPECIAL)
_ENDED_CLASSES = ("T5Tokenizer", "T5TokenizerFast")  # texts end with the eos token unless the settings say otherwise


def build(source: Path, settings: Mapping[str, object]) -> str | None:
    """The contents of a tokenizer.json; None where the folder has no SentencePiece model.

    Args:
        source: the folder.
        settings: its tokenizer_config.json.

    Raises:
        ModelError: a file is damaged, or the files contradict each other.
        UnsupportedError: a model of a kind that Cupola does not know.
    """
    path = next((source / name for name in MODELS if (source / name).is_file()), None)
    if path is None:
        return None
    model = read_model(path)
    added = _added_tokens(source, settings)
    pieces = _renamed(model.pieces, added)
    if pieces.prefix == "each" and settings.get("add_prefix_space") is False:
        pieces = replace(pieces, prefix="never")
    elif pieces.prefix == "each" and settings.get("legacy") is False:
        pieces = replace(pieces, prefix="first")
    try:
        tokenizer = build_pieces(pieces)
        _add(tokenizer, path, len(pieces.texts), added)
    except ModelError:
        raise
    except Exception as error:  # the library has no exception type of its own
        raise ModelError(f"{path} is an inconsistent tokenizer: {error}", hint=HINT_AGAIN) from error
    _put_around(tokenizer, model, pieces, {**read_json_if_there(source / _SPECIAL), **settings})
    return str(tokenizer.to_str())


def _added_tokens(source: Path, settings: Mapping[str, object]) -> dict[int, AddedToken]:
    """The tokens that the folder adds to the model's, or renames, by their ids."""
    added: dict[int, AddedToken] = {}
    for text, number in read_json_if_there(source / _ADDED).items():
        if isinstance(number, int):
            added[number] = AddedToken(text, special=False, normalized=False)
    entries = settings.get("added_tokens_decoder")
    for key, entry in entries.items() if isinstance(entries, Mapping) else ():
        match entry:
            case {"content": str(text)} if str(key).isdigit():
                flags = {name: entry.get(name) is True for name in ("lstrip", "rstrip", "single_word", "normalized")}
                added[int(key)] = AddedToken(text, special=entry.get("special") is True, **flags)
    return dict(sorted(added.items()))


def _renamed(pieces: Pieces, added: Mapping[int, AddedToken]) -> Pieces:
    """The vocabulary with the names that the folder gives its tokens."""
    texts = list(pieces.texts)
    types = pieces.types.copy()
    for i, token in added.items():
        if i < len(texts):
            if texts[i] != token.content:
                types[i] = PieceType.NORMAL if pieces.unigram else PieceType.UNUSED  # found as an added token
            texts[i] = token.content
    return replace(pieces, texts=texts, types=np.asarray(types))


def _add(tokenizer: Tokenizer, path: Path, size: int, added: Mapping[int, AddedToken]) -> None:
    for i, token in added.items():
        known = tokenizer.token_to_id(token.content)
        if known not in (None, i) or (known is None and i != max(size, tokenizer.get_vocab_size())):
            raise ModelError(
                f"the folder of {path.name} gives the token {token.content!r} the id {i}, which it cannot have there",
                hint=HINT_AGAIN,
            )
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])


def _put_around(
    tokenizer: Tokenizer, model: SentencePieceModel, pieces: Pieces, settings: Mapping[str, object]
) -> None:
    def token(name: str) -> list[str]:
        value = settings.get(f"{name}_token")
        text = value.get("content") if isinstance(value, Mapping) else value
        if text is None and name in model.ids:
            text = pieces.texts[model.ids[name]]
        return [text] if isinstance(text, str) and tokenizer.token_to_id(text) is not None else []

    ended = settings.get("tokenizer_class") in _ENDED_CLASSES
    before = token("bos") if settings.get("add_bos_token", not ended) else []
    after = token("eos") if settings.get("add_eos_token", ended) else []
    put_around(tokenizer, before, after, before)
