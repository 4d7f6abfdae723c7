"""The tokenizer inside a GGUF file, as tokenizer.json, chat_template.jinja and generation_config.json.

Owns the meaning of the `tokenizer.*` metadata. The rules of the named pre-tokenizers are in `gguf_pretokenizers`; the
algorithms are the `tokenizers` library's.
"""

from __future__ import annotations

import json
from enum import IntEnum
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.gguf_file import GgufFile
from cupola.weights.gguf_pretokenizers import PreTokenizer, pre_tokenizer
from cupola.weights.storage import write_text

_PREFIX = "tokenizer.ggml."
_SPACE = "\u2581"  # how SentencePiece writes a space
_BYTE_MODELS = ("gpt2",)  # byte-level BPE with a list of merges
_PIECE_MODELS = ("llama",)  # SentencePiece BPE: merges follow from the scores

# Tokens that end a turn in one family of models or another. A file's own eos id does not always cover them, and some
# files do not even mark them as control tokens; llama.cpp treats them as both all the same.
_END_TEXTS = frozenset(
    (
        *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>"),
        *("<|end_of_text|>", "<end_of_turn>", "<end_of_utterance>", "<EOT>", "[EOT]"),
    )
)
# What the makers of a model recommend: "general.sampling.<key>" -> key of generation_config.json
_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


class _Type(IntEnum):
    """Values of tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def write_text_files(file: GgufFile, folder: Path) -> None:
    """Writes the three text files into `folder`; chat_template.jinja only where the file has a template.

    Raises:
        ModelError: the file has no tokenizer, or an inconsistent one.
        UnsupportedError: a tokenizer model or pre-tokenizer that Cupola does not know.
        StorageError: the folder cannot be written.
    """
    vocabulary = _Vocabulary(file)
    write_text(folder / "tokenizer.json", vocabulary.tokenizer().to_str())
    write_text(folder / "generation_config.json", json.dumps(vocabulary.generation_config(), indent=2) + "\n")
    template = file.metadata.get("tokenizer.chat_template")
    if isinstance(template, str) and template:
        write_text(folder / "chat_template.jinja", template)


class _Vocabulary:
    """The tokens of a file with their types, and what is built from them."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        tokens = self._texts("tokens")
        self.tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise ModelError(f"{file.path} has a token twice in its vocabulary")
        types = self._numbers("token_type")
        self.types = np.full(len(self.tokens), _Type.NORMAL) if types is None else types.copy()
        self._ends = sorted(self.ids[text] for text in _END_TEXTS & self.ids.keys())
        self.types[self._ends] = _Type.CONTROL

    def tokenizer(self) -> Tokenizer:
        model = self._file.metadata.get(f"{_PREFIX}model")
        try:
            if model in _BYTE_MODELS:
                return self._byte_level(pre_tokenizer(self._name_of_rule()))
            if model in _PIECE_MODELS:
                return self._sentence_pieces()
        except (ModelError, MemoryError):
            raise
        except Exception as error:  # the library has no exception type of its own
            raise ModelError(f"{self._file.path} has an inconsistent tokenizer: {error}") from error
        raise UnsupportedError(
            f"{self._file.path} has the tokenizer model {model!r} (tokenizer.ggml.model)",
            hint=f"Cupola reads {' and '.join((*_BYTE_MODELS, *_PIECE_MODELS))}; or use the Hugging Face folder.",
        )

    def generation_config(self) -> dict[str, object]:
        """Special ids and recommended sampling, with the keys of Hugging Face's generation_config.json.

        The file's own end id comes first among the ends.
        """
        named = [i for key in ("eos", "eot", "eom") if (i := self._id(key)) is not None]
        ends = list(dict.fromkeys(named + self._ends))
        if {"<|return|>", "<|call|>", "<|end|>"} <= self.ids.keys():  # there it ends a message, not the turn
            ends = [i for i in ends if i != self.ids["<|end|>"]]
        config = {
            "bos_token_id": self._id("bos"),
            "eos_token_id": ends,
            "pad_token_id": self._id("padding"),
            **{name: self._file.metadata.get(f"general.sampling.{key}") for key, name in _SAMPLING.items()},
        }
        return {key: value for key, value in config.items() if value is not None}

    def _byte_level(self, rule: PreTokenizer) -> Tokenizer:
        merges = [_cut_merge(merge) for merge in self._texts("merges")]
        tokenizer = Tokenizer(BPE(vocab=self.ids, merges=merges, ignore_merges=rule.ignore_merges))
        tokenizer.pre_tokenizer = rule.build()
        tokenizer.decoder = decoders.ByteLevel()
        self._finish(tokenizer, rule.add_bos)
        return tokenizer

    def _sentence_pieces(self) -> Tokenizer:
        unknown = self._id("unknown", 0)
        bytes_known = bool((self.types == _Type.BYTE).any())
        tokenizer = Tokenizer(
            BPE(
                vocab=self.ids,
                merges=self._merges_by_score(),
                unk_token=None if unknown is None else self.tokens[unknown],
                fuse_unk=True,
                byte_fallback=bytes_known,
            )
        )
        prefix = self._flag("add_space_prefix", True)
        escape = normalizers.Replace(" ", _SPACE)
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), escape] if prefix else [escape])
        steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
        self._finish(tokenizer, add_bos=True, default_bos=1, default_eos=2)
        return tokenizer

    def _merges_by_score(self) -> list[tuple[str, str]]:
        """Every way to put a piece together from two others, the pieces of high score first."""
        scores = self._numbers("scores")
        if scores is None:
            raise ModelError(f"{self._file.path} lacks the metadata {_PREFIX}scores")
        mergeable = {t: i for t, i in self.ids.items() if self.types[i] in (_Type.NORMAL, _Type.USER_DEFINED)}
        merges: list[tuple[float, str, str]] = []
        for piece, i in mergeable.items():
            cuts = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
            pairs = [(left, right) for left, right in cuts if left in mergeable and right in mergeable]
            pairs.sort(key=lambda pair: (mergeable[pair[0]], mergeable[pair[1]]))
            merges.extend((float(scores[i]), left, right) for left, right in pairs)
        merges.sort(key=lambda merge: -merge[0])
        return [(left, right) for _, left, right in merges]

    def _finish(
        self, tokenizer: Tokenizer, add_bos: bool, default_bos: int | None = None, default_eos: int | None = None
    ) -> None:
        """Special tokens, and what is put around a prompt."""
        control = [self.tokens[i] for i in np.flatnonzero(np.isin(self.types, (_Type.CONTROL, _Type.UNKNOWN)))]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        plain = [self.tokens[i] for i in np.flatnonzero(self.types == _Type.USER_DEFINED)]
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
        bos = self._id("bos", default_bos) if self._flag("add_bos_token", add_bos) else None
        eos = self._id("eos", default_eos) if self._flag("add_eos_token", False) else None
        around = [self.tokens[i] for i in (bos, eos) if i is not None]
        if around:
            before = [] if bos is None else [self.tokens[bos]]
            after = [] if eos is None else [self.tokens[eos]]
            tokenizer.post_processor = processors.TemplateProcessing(
                single=[*before, "$A", *after],
                pair=[*before, "$A", *after, *(f"{t}:1" for t in before), "$B:1", *(f"{t}:1" for t in after)],
                special_tokens=[(token, self.ids[token]) for token in around],
            )

    def _name_of_rule(self) -> str:
        name = self._file.metadata.get(f"{_PREFIX}pre", "default")
        return name if isinstance(name, str) and name else "default"

    def _id(self, key: str, default: int | None = None) -> int | None:
        """A special id, or None where the file has none, or one beyond its vocabulary."""
        value = self._file.metadata.get(f"{_PREFIX}{key}_token_id", default)
        return value if isinstance(value, int) and 0 <= value < len(self.tokens) else None

    def _flag(self, key: str, default: bool) -> bool:
        return bool(self._file.metadata.get(f"{_PREFIX}{key}", default))

    def _texts(self, key: str) -> list[str]:
        value = self._file.metadata.get(_PREFIX + key)
        if not isinstance(value, list):
            raise ModelError(
                f"{self._file.path} lacks the metadata {_PREFIX}{key}", hint="The file must hold its tokenizer."
            )
        return [str(text) for text in value]

    def _numbers(self, key: str) -> np.ndarray | None:
        """One number a token, or None where the file has no such list."""
        value = self._file.metadata.get(_PREFIX + key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or len(value) < len(self.tokens):
            raise ModelError(f"{self._file.path} has {_PREFIX}{key} for fewer than its {len(self.tokens)} tokens")
        return value[: len(self.tokens)]


def _cut_merge(merge: str) -> tuple[str, str]:
    """The two halves of a merge: cut at the first space, but a half is never empty."""
    at = merge.find(" ", 1)
    return (merge, "") if at < 0 else (merge[:at], merge[at + 1 :])
