"""The tokens of a GGUF file with their types, its special ids, and what ends an answer.

Owns the meaning of the `tokenizer.ggml.*` metadata that all kinds of tokenizers share.
"""

from __future__ import annotations

import numpy as np

from cupola.errors import ModelError
from cupola.weights.gguf_file import GgufFile
from cupola.weights.pieces import PieceType

PREFIX = "tokenizer.ggml."

# Tokens that end a turn in one family of models or another. A file's own eos id does not always cover them, and some
# files do not even mark them as control tokens; llama.cpp treats them as both all the same.
_END_TEXTS = frozenset(
    (
        *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>"),
        *("<|end_of_text|>", "<end_of_turn>", "<end_of_utterance>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "</s>"),
        *("<eos>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|calls|>", "<|flush|>"),
        "[e~[",
    )
)
# In these vocabularies it ends a message, not the turn.
_NO_END = "<|end|>"
_NO_END_BESIDE = ({"<|return|>", "<|call|>"}, {"<|calls|>", "<|flush|>"})
# What the makers of a model recommend: "general.sampling.<key>" -> key of generation_config.json
_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


class Vocabulary:
    """What the file says of its tokens.

    Raises (on construction):
        ModelError: there are no tokens, or they are inconsistent.
    """

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(self.texts("tokens"))]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise ModelError(f"{file.path} has a token twice in its vocabulary")
        types = self.numbers("token_type")
        self.types = np.full(len(self.tokens), PieceType.NORMAL) if types is None else types.copy()
        self._ends = sorted(self.ids[text] for text in _END_TEXTS & self.ids.keys())
        self.types[self._ends] = PieceType.CONTROL

    def of_types(self, *types: PieceType) -> list[str]:
        """The tokens of these types, in order."""
        return [self.tokens[i] for i in np.flatnonzero(np.isin(self.types, types))]

    def generation_config(self) -> dict[str, object]:
        """Special ids and recommended sampling, with the keys of Hugging Face's generation_config.json.

        The file's own end id comes first among the ends.
        """
        named = [i for key in ("eos", "eot", "eom") if (i := self.special(key)) is not None]
        ends = list(dict.fromkeys(named + self._ends))
        if any(beside | {_NO_END} <= self.ids.keys() for beside in _NO_END_BESIDE):
            ends = [i for i in ends if i != self.ids[_NO_END]]
        config = {
            "bos_token_id": self.special("bos"),
            "eos_token_id": ends,
            "pad_token_id": self.special("padding"),
            **{name: self.file.metadata.get(f"general.sampling.{key}") for key, name in _SAMPLING.items()},
        }
        return {key: value for key, value in config.items() if value is not None}

    def special(self, key: str, default: int | None = None) -> int | None:
        """A special id, or None where the file has none, or one beyond its vocabulary."""
        value = self.file.metadata.get(f"{PREFIX}{key}_token_id", default)
        return value if isinstance(value, int) and 0 <= value < len(self.tokens) else None

    def token_if(self, wanted: bool, key: str, default: int | None = None) -> list[str]:
        """The special token of that key, alone, where it is `wanted` and there is one."""
        found = self.special(key, default) if wanted else None
        return [] if found is None else [self.tokens[found]]

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.file.metadata.get(f"{PREFIX}{key}", default))

    def text(self, key: str, default: str) -> str:
        """A string; the default where it is missing or empty."""
        value = self.file.metadata.get(f"{PREFIX}{key}")
        return value if isinstance(value, str) and value else default

    def texts(self, key: str) -> list[str]:
        value = self.file.metadata.get(PREFIX + key)
        if not isinstance(value, list):
            raise ModelError(
                f"{self.file.path} lacks the metadata {PREFIX}{key}", hint="The file must hold its tokenizer."
            )
        return [str(text) for text in value]

    def numbers(self, key: str) -> np.ndarray | None:
        """One number a token, or None where the file has no such list."""
        value = self.file.metadata.get(PREFIX + key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or len(value) < len(self.tokens):
            raise ModelError(f"{self.file.path} has {PREFIX}{key} for fewer than its {len(self.tokens)} tokens")
        return value[: len(self.tokens)]

    def data(self, key: str) -> bytes:
        """A list of bytes; nothing where it is missing."""
        value = self.file.metadata.get(PREFIX + key)
        return value.astype(np.int64).astype(np.uint8).tobytes() if isinstance(value, np.ndarray) else b""
