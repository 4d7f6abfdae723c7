"""The door between the text side of the engine and whatever generates the tokens.

A backend takes `GenerateRequest`s and publishes `Delta`s. It knows token ids only: no text, no asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cupola.engine.histogram import HistogramCounts
from cupola.engine.native_encoder import NativeEmbedder
from cupola.engine.request import Delta, EngineConfig, EngineStats, GenerateRequest, SamplingParams
from cupola.manifest import Manifest
from cupola.text.chat_template import ChatTemplate
from cupola.text.tokenizer import Tokenizer


class Backend(Protocol):
    """Generates tokens. All methods may be called from any thread, and none waits for the model."""

    def add(self, request: GenerateRequest) -> None:
        """Queue a request. OverloadedError: the queue is full or drains. ContextLengthError: it can never fit."""

    def abort(self, request_id: int) -> None:
        """End a request; its last delta says ABORT unless it had ended already. Unknown ids are ignored."""

    def unpin(self, token_ids: Sequence[int], cache_seed: int = 0) -> None:
        """Let the pages go that a request with this prompt pinned. Unknown prompts are ignored."""

    def take(self) -> list[Delta]:
        """Everything published since the last call. Every accepted request gets exactly one finish_reason."""

    @property
    def event_fd(self) -> int:
        """A file descriptor that is readable when `take` has something, and when the backend died."""

    def stats(self) -> EngineStats:
        """Counters and gauges now."""

    def histograms(self) -> Mapping[str, HistogramCounts]:
        """What it measures of its steps, by name; see `NativeEngine.histograms`."""

    @property
    def alive(self) -> bool:
        """False after a failure that ended the backend, and after `close`."""

    @property
    def failure(self) -> str | None:
        """Why it is no longer alive."""

    def drain(self) -> None:
        """Refuse new requests; finish the accepted ones."""

    def close(self) -> None:
        """Stop and free everything; may be called twice."""


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A backend that runs, and the text side of its model.

    Args:
        kind: name of the backend (compiled, scripted).
        reason: one sentence: what was chosen, and why.
        embedder: what makes the embeddings of an encoder, whose backend generates nothing; None for other models.
        default_params: what a request gets that asks for nothing (from generation_config.json).
    """

    kind: str
    reason: str
    backend: Backend
    config: EngineConfig
    manifest: Manifest
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    default_params: SamplingParams
    embedder: NativeEmbedder | None = None
