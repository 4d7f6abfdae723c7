"""Cupola: compile a language model ahead of time, serve it with a small C++ engine.

    from cupola import Engine, SamplingParams

    with Engine("smollm2") as engine:
        print(engine.chat([{"role": "user", "content": "Hello"}]).text)

The names below are loaded at first use, so that `import cupola` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cupola import errors
    from cupola.engine.async_engine import AsyncEngine
    from cupola.engine.classification import Classification
    from cupola.engine.embedding import Embedding
    from cupola.engine.engine import Engine
    from cupola.engine.grammar import GrammarSpec
    from cupola.engine.options import EngineOptions
    from cupola.engine.output import Completion, Score, ScoredPosition, ScoredToken, TextDelta, Usage
    from cupola.engine.request import FinishReason, RequestOptions, SamplingParams
    from cupola.engine.reranking import PairOptions, Ranked, Similarity

__version__ = "0.1.0"

__all__ = [
    "AsyncEngine",
    "Classification",
    "Completion",
    "Embedding",
    "Engine",
    "EngineOptions",
    "FinishReason",
    "GrammarSpec",
    "PairOptions",
    "Ranked",
    "RequestOptions",
    "SamplingParams",
    "Score",
    "ScoredPosition",
    "ScoredToken",
    "Similarity",
    "TextDelta",
    "Usage",
    "__version__",
    "errors",
]

_HOMES = {
    "AsyncEngine": "cupola.engine.async_engine",
    "Classification": "cupola.engine.classification",
    "Completion": "cupola.engine.output",
    "Embedding": "cupola.engine.embedding",
    "Engine": "cupola.engine.engine",
    "EngineOptions": "cupola.engine.options",
    "FinishReason": "cupola.engine.request",
    "GrammarSpec": "cupola.engine.grammar",
    "PairOptions": "cupola.engine.reranking",
    "Ranked": "cupola.engine.reranking",
    "RequestOptions": "cupola.engine.request",
    "SamplingParams": "cupola.engine.request",
    "Score": "cupola.engine.output",
    "ScoredPosition": "cupola.engine.output",
    "ScoredToken": "cupola.engine.output",
    "Similarity": "cupola.engine.reranking",
    "TextDelta": "cupola.engine.output",
    "Usage": "cupola.engine.output",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module("cupola.errors")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cupola' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
