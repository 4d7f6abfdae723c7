"""Grammars as the native engine knows them: llguidance's library, a model's vocabulary, compiled grammars.

Nothing is loaded before the first grammar is wanted. It knows no limits of time, and keeps no cache.
"""

from __future__ import annotations

import importlib.util
from array import array
from collections.abc import Sequence
from pathlib import Path

from cupola.engine.native_library import first_line, native
from cupola.errors import EngineError
from cupola.text.vocabulary import Vocabulary

_UNKNOWN, _MERGES, _WORD_MERGES = 0, 1, 2  # enum class Spelling in C++


class GrammarTokenizer:
    """A model's vocabulary, ready for any number of grammars. Safe to use from several threads.

    Args:
        vocabulary: one entry for each id of the logits.
        eos_ids: ids that end a text, at least one.

    Raises:
        EngineError: llguidance is missing or of another version, or it does not take the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary, eos_ids: Sequence[int]) -> None:
        spelling = (_WORD_MERGES if vocabulary.words else _MERGES) if vocabulary.byte_pairs else _UNKNOWN
        try:
            self._handle = native("grammar.tokenizer")(
                str(_library()),
                array("I", map(len, vocabulary.tokens)).tobytes(),
                b"".join(vocabulary.tokens),
                array("I", eos_ids).tobytes(),
                spelling,
            )
        except RuntimeError as error:
            raise EngineError(
                f"grammars cannot be used: {first_line(error)}",
                hint="install the version of llguidance that Cupola names",
            ) from error

    def compile(self, kind: str, text: str) -> object:
        """A compiled grammar's handle. Takes from microseconds to seconds, without the interpreter's lock.

        Args:
            kind: "json_schema", "regex" or "lark".

        Raises:
            ValueError: llguidance does not take it; the message is its reason.
        """
        handle: object = native("grammar.compile")(self._handle, kind, text)
        return handle

    def encode(self, text: bytes) -> list[int]:
        """How forced text is written in tokens; for tests."""
        return list(memoryview(native("testing.grammar_encode")(self._handle, text)).cast("q"))


def _library() -> Path:
    """The native half of the package `llguidance`, which need not be imported for it."""
    spec = importlib.util.find_spec("llguidance")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(location).glob("_lib*.so")):
            return path
    raise EngineError("llguidance was not found, which grammars need", hint="install the package llguidance")
