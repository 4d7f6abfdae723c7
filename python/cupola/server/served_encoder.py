"""A model that makes embeddings, or scores texts, behind its endpoints. Knows no HTTP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cupola.engine.async_engine import AsyncEngine
from cupola.protocol.models import Capability
from cupola.server.served_engine import ServedEngine
from cupola.server.slot import ModelSummary


@dataclass(frozen=True, slots=True)
class ServedEncoder(ServedEngine):
    """An encoder under one or more names."""

    @classmethod
    def of(cls, engine: AsyncEngine, names: Sequence[str] = ()) -> ServedEncoder:
        """The engine's model under `names`, or under its own name."""
        return cls(engine, tuple(names) or (engine.model_name,), int(time.time()))

    @property
    def page_size(self) -> None:
        """It has no KV cache."""
        return

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What may be asked of it."""
        classifier = self.engine.manifest.classifier
        if classifier is None:
            return ("embeddings", "rerank")
        return ("classify", "rerank") if len(classifier.labels) == 1 else ("classify",)

    @property
    def summary(self) -> ModelSummary:
        """What the operator wants to see of it."""
        config, manifest = self.engine.config, self.engine.manifest
        return ModelSummary(
            kind=manifest.task,
            architecture=manifest.architecture,
            quant=manifest.scheme,
            backend=self.engine.backend,
            context=config.max_context,
            cache="",
            concurrency=config.max_batch,
        )
