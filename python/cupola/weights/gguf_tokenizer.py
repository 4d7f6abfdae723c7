"""The tokenizer inside a GGUF file, as tokenizer.json, chat templates and generation_config.json.

Owns what each kind of tokenizer (`tokenizer.ggml.model`) is in terms of the `tokenizers` library. The metadata is
`gguf_vocabulary`'s, the rules of the named pre-tokenizers are `gguf_pretokenizers`', those of SentencePiece `pieces`'.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordPiece

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.gguf_file import GgufFile
from cupola.weights.gguf_pretokenizers import PRE_TOKENIZERS, pre_tokenizer
from cupola.weights.gguf_vocabulary import PREFIX, Vocabulary
from cupola.weights.pieces import SPACE, Pieces, PieceType, add_tokens, build, put_around
from cupola.weights.storage import write_text
from cupola.weights.templates import DEFAULT, write_templates

_TEMPLATE = "tokenizer.chat_template"
_CONTINUED = "##"  # how WordPiece writes what goes on with a word


def write_text_files(file: GgufFile, folder: Path) -> None:
    """Writes the text files into `folder`; templates only where the file has some.

    Raises:
        ModelError: the file has no tokenizer, or an inconsistent one.
        UnsupportedError: a tokenizer model or pre-tokenizer that Cupola does not know.
        StorageError: the folder cannot be written.
    """
    vocabulary = Vocabulary(file)
    write_text(folder / "tokenizer.json", _tokenizer(vocabulary).to_str())
    write_text(folder / "generation_config.json", json.dumps(vocabulary.generation_config(), indent=2) + "\n")
    write_templates(_templates(file.metadata), folder)


def _templates(metadata: Mapping[str, object]) -> dict[str, str]:
    """The usual template, and further ones under `tokenizer.chat_template.NAME`."""
    named = {
        key.removeprefix(f"{_TEMPLATE}."): value
        for key, value in metadata.items()
        if key.startswith(f"{_TEMPLATE}.") and isinstance(value, str)
    }
    usual = metadata.get(_TEMPLATE)
    return named | ({DEFAULT: usual} if isinstance(usual, str) else {})


def _tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    path, model = vocabulary.file.path, vocabulary.file.metadata.get(f"{PREFIX}model")
    reader = _READERS.get(model) if isinstance(model, str) else None
    if reader is None:
        raise UnsupportedError(
            f"{path} has the tokenizer model {model!r} (tokenizer.ggml.model)",
            hint=f"Cupola reads {', '.join(sorted(_READERS))}; or use the Hugging Face folder.",
        )
    try:
        return reader(vocabulary)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # the library has no exception type of its own
        raise ModelError(f"{path} has an inconsistent tokenizer: {error}") from error


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    """Byte-pair merges within words."""
    model = vocabulary.text("model", "")
    rule = pre_tokenizer(model if model in PRE_TOKENIZERS else vocabulary.text("pre", "default"))
    merges = [_cut_merge(merge) for merge in vocabulary.texts("merges")]
    tokenizer = Tokenizer(
        BPE(
            vocab=vocabulary.ids,
            merges=merges,
            ignore_merges=rule.ignore_merges,
            byte_fallback=not rule.byte_level,
            unk_token=None if rule.byte_level or "<unk>" not in vocabulary.ids else "<unk>",
        )
    )
    tokenizer.pre_tokenizer = rule.build()
    if rule.byte_level:
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    _add_special(tokenizer, vocabulary)
    before = vocabulary.token_if(vocabulary.flag("add_bos_token", rule.add_bos), "bos")
    ends = vocabulary.token_if(vocabulary.flag("add_sep_token", rule.add_sep), "seperator")
    after = ends or vocabulary.token_if(vocabulary.flag("add_eos_token", False), "eos")
    put_around(tokenizer, before, after, ends or before)
    return tokenizer


def _merged_pieces(vocabulary: Vocabulary) -> Tokenizer:
    """SentencePiece's byte-pair merges, which follow from the scores."""
    tokenizer = build(_pieces(vocabulary, unigram=False, unknown=0))
    before = vocabulary.token_if(vocabulary.flag("add_bos_token", True), "bos", 1)
    after = vocabulary.token_if(vocabulary.flag("add_eos_token", False), "eos", 2)
    put_around(tokenizer, before, after, before)
    return tokenizer


def _likely_pieces(vocabulary: Vocabulary) -> Tokenizer:
    """SentencePiece's unigram model."""
    tokenizer = build(_pieces(vocabulary, unigram=True, unknown=2))
    before = vocabulary.token_if(vocabulary.flag("add_bos_token", False), "bos")
    after = vocabulary.token_if(vocabulary.flag("add_eos_token", True), "eos", 1)
    put_around(tokenizer, before, after, after if before else [])
    return tokenizer


def _pieces(vocabulary: Vocabulary, *, unigram: bool, unknown: int) -> Pieces:
    scores = vocabulary.numbers("scores")
    if scores is None:
        raise ModelError(f"{vocabulary.file.path} lacks the metadata {PREFIX}scores")
    return Pieces(
        texts=vocabulary.tokens,
        scores=scores.astype(np.float32),
        types=vocabulary.types,
        unknown=vocabulary.special("unknown", unknown),
        unigram=unigram,
        characters=vocabulary.data("precompiled_charsmap") if unigram else b"",
        prefix="each" if vocabulary.flag("add_space_prefix", True) else "never",
        merge_spaces=unigram and vocabulary.flag("remove_extra_whitespaces", False),
    )


def _word_pieces(vocabulary: Vocabulary) -> Tokenizer:
    """WordPiece, whose tokens at the start of a word have a mark in GGUF, where those that go on have it elsewhere."""
    words = {_word_piece(token, PieceType(kind)): i for i, (token, kind) in enumerate(_typed(vocabulary))}
    unknown = vocabulary.special("unknown", 100)
    if len(words) != len(vocabulary.tokens) or unknown is None:
        raise ModelError(f"{vocabulary.file.path} has two tokens for one word, or none for unknown ones")
    tokenizer = Tokenizer(WordPiece(words, unk_token=vocabulary.tokens[unknown], continuing_subword_prefix=_CONTINUED))
    lowercase = vocabulary.flag("normalizer.lowercase", True)
    accents = vocabulary.flag("normalizer.strip_accents", lowercase)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUED)
    _add_special(tokenizer, vocabulary)
    first = vocabulary.special("bos", vocabulary.special("cls", 101))
    before = [vocabulary.tokens[first]] if first is not None and vocabulary.flag("add_bos_token", True) else []
    ends = vocabulary.token_if(vocabulary.flag("add_sep_token", True), "seperator", 102)
    put_around(tokenizer, before, ends or vocabulary.token_if(vocabulary.flag("add_eos_token", False), "eos"), [])
    return tokenizer


def _typed(vocabulary: Vocabulary) -> list[tuple[str, int]]:
    return list(zip(vocabulary.tokens, (int(kind) for kind in vocabulary.types), strict=True))


def _word_piece(token: str, kind: PieceType) -> str:
    if token.startswith(SPACE):
        return token.removeprefix(SPACE)
    bracketed = token.startswith("[") and token.endswith("]") and len(token) > 2  # [CLS], [unused1]
    return token if bracketed or kind is not PieceType.NORMAL else f"{_CONTINUED}{token}"


def _add_special(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    add_tokens(tokenizer, vocabulary.of_types(PieceType.CONTROL, PieceType.UNKNOWN), special=True)
    add_tokens(tokenizer, vocabulary.of_types(PieceType.USER_DEFINED), special=False)


def _cut_merge(merge: str) -> tuple[str, str]:
    """The two halves of a merge: cut at the first space, but a half is never empty."""
    at = merge.find(" ", 1)
    return (merge, "") if at < 0 else (merge[:at], merge[at + 1 :])


_READERS: Mapping[str, Callable[[Vocabulary], Tokenizer]] = MappingProxyType(
    {
        "gpt2": _byte_level,
        "gemma4": _byte_level,
        "llama": _merged_pieces,
        "bert": _word_pieces,
        "t5": _likely_pieces,
    }
)
