"""What a model is for: what an encoder can be asked, and the error of who asks a model for something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cupola.engine.backends.backend import OpenedModel
from cupola.engine.classification import Classifier
from cupola.engine.embedding import Embedder
from cupola.engine.encoder_desk import EncoderDesk
from cupola.engine.encoder_text import EncoderText, Pair
from cupola.engine.reranking import PairOptions, Similarity, similarities
from cupola.errors import EngineError, RequestError
from cupola.manifest import Manifest, Task

_DOES: Mapping[Task, str] = MappingProxyType(
    {"generate": "generates text", "embed": "makes embeddings", "classify": "scores texts and pairs"}
)
_HINTS: Mapping[Task, str] = MappingProxyType(
    {
        "generate": "choose an encoder, such as `minilm`",
        "embed": "send texts to /v1/embeddings (in Python: `embed`) or /v1/rerank (`rerank`), or choose another model",
        "classify": "send texts to /v1/rerank (in Python: `rerank`) or /classify (`classify`), or choose another model",
    }
)


def wrong_purpose(manifest: Manifest, asked: str) -> RequestError:
    """The error of who asks a model for what it cannot do, such as `make embeddings`."""
    return RequestError(
        f"the model `{manifest.name}` {_DOES[manifest.task]} and cannot {asked}",
        param="model",
        code="unsupported_model",
        hint=_HINTS[manifest.task],
    )


@dataclass(frozen=True, slots=True)
class Encoders:
    """A model as an encoder; of one that generates, nothing but refusals.

    Args:
        desk: the jobs; None: the model is no encoder.
    """

    manifest: Manifest
    desk: EncoderDesk | None = None
    model: Embedder | Classifier | None = None

    @classmethod
    def of(cls, model: OpenedModel, death: Callable[[], EngineError]) -> Encoders:
        """The opened model's."""
        manifest = model.manifest
        if model.embedder is None:
            return cls(manifest)
        desk, most = EncoderDesk(model.embedder, death), model.config.max_context
        if manifest.classifier is not None:
            text = EncoderText(model.tokenizer, most, manifest.classifier.pair_types)
            return cls(manifest, desk, Classifier(desk, text, manifest.classifier))
        assert manifest.embedding is not None, "there is no other kind of encoder"
        return cls(manifest, desk, Embedder(desk, EncoderText(model.tokenizer, most), manifest.embedding))

    @property
    def embedder(self) -> Embedder:
        """Raises RequestError where the model makes no embeddings."""
        if not isinstance(self.model, Embedder):
            raise wrong_purpose(self.manifest, "make embeddings")
        return self.model

    @property
    def classifier(self) -> Classifier:
        """Raises RequestError where the model has no labels."""
        if not isinstance(self.model, Classifier):
            raise wrong_purpose(self.manifest, "classify")
        return self.model

    async def similarities(self, pairs: Sequence[Pair], options: PairOptions) -> list[Similarity]:
        """See `AsyncEngine.similarity`."""
        if self.model is None:
            raise wrong_purpose(self.manifest, "compare texts")
        return await similarities(self.model, pairs, options)
