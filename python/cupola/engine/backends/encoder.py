"""Encoders: models that make embeddings, or classify, and generate nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cupola.engine.backends.backend import OpenedModel
from cupola.engine.histogram import HistogramCounts
from cupola.engine.native_encoder import NativeEmbedder, load_encoder
from cupola.engine.options import EngineOptions
from cupola.engine.request import Delta, EngineStats, GenerateRequest, SamplingParams
from cupola.engine.sizing import encoder_config
from cupola.errors import EngineError
from cupola.manifest import Manifest
from cupola.text.tokenizer import Tokenizer


def open_encoder(folder: Path, manifest: Manifest, options: EngineOptions, reason: str) -> OpenedModel:
    """Load a compiled encoder, whose files are checked already, and start its runner. Raises as `open_compiled`."""
    config = encoder_config(manifest, options)
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    embedder = NativeEmbedder(load_encoder(folder, manifest, config), config)
    backend = EncoderBackend(embedder)
    return OpenedModel("compiled", reason, backend, config, manifest, tokenizer, None, SamplingParams(), embedder)


class EncoderBackend:
    """A `Backend` that refuses every request for text; all else is the runner's."""

    def __init__(self, embedder: NativeEmbedder) -> None:
        self._embedder = embedder

    def add(self, request: GenerateRequest) -> None:  # noqa: ARG002
        raise EngineError("an encoder generates nothing")

    def abort(self, request_id: int) -> None:  # noqa: ARG002
        return

    def unpin(self, token_ids: Sequence[int], cache_seed: int = 0) -> None:  # noqa: ARG002
        return

    def take(self) -> list[Delta]:
        return []

    @property
    def event_fd(self) -> int:
        return self._embedder.event_fd

    def stats(self) -> EngineStats:
        return self._embedder.stats()

    def histograms(self) -> Mapping[str, HistogramCounts]:
        return {}

    @property
    def alive(self) -> bool:
        return self._embedder.alive

    @property
    def failure(self) -> str | None:
        return self._embedder.failure

    def drain(self) -> None:
        self._embedder.drain()

    def close(self) -> None:
        self._embedder.close()
