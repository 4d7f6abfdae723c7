"""Embeddings of texts: what becomes of vectors on their way out of an encoder."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from cupola.engine.encoder_desk import EncoderDesk
from cupola.engine.encoder_text import EncoderText, Input
from cupola.errors import RequestError
from cupola.manifest import Embedding as EmbeddingInfo


@dataclass(frozen=True, slots=True)
class Embedding:
    """What an encoder makes of one text.

    Args:
        vector: float32.
        num_tokens: of the text, special ones included.
    """

    vector: array[float]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Embedder:
    """An encoder that makes embeddings.

    Args:
        info: what its vectors are.
    """

    desk: EncoderDesk
    text: EncoderText
    info: EmbeddingInfo

    async def embed(
        self, inputs: Sequence[Input], dimensions: int | None = None, truncate: int | None = None
    ) -> list[Embedding]:
        """See `AsyncEngine.embed`."""
        self._check_dimensions(dimensions)
        texts = await self.text.texts(inputs, truncate)
        row = self.info.dimensions
        vectors = array("f")
        vectors.frombytes(await self.desk.run(texts))
        cut = [self._cut(vectors[i * row : (i + 1) * row], dimensions) for i in range(len(texts))]
        return [Embedding(vector, len(text.ids)) for vector, text in zip(cut, texts, strict=True)]

    def _check_dimensions(self, dimensions: int | None) -> None:
        info = self.info
        if dimensions is None or dimensions == info.dimensions:
            return
        if not 1 <= dimensions <= info.dimensions:
            raise RequestError(
                f"`dimensions` is {dimensions}, but the model's vectors have {info.dimensions}", param="dimensions"
            )
        if info.matryoshka and dimensions not in info.matryoshka:
            allowed = ", ".join(str(one) for one in info.matryoshka)
            raise RequestError(
                f"`dimensions` is {dimensions}, but the model was trained for {allowed}", param="dimensions"
            )

    def _cut(self, vector: array[float], dimensions: int | None) -> array[float]:
        """The first components, of length 1 again where the whole has it (Kusupati et al., 2022)."""
        if dimensions is None or dimensions == len(vector):
            return vector
        front = vector[:dimensions]
        if not self.info.normalized:
            return front
        norm = length(front)
        return array("f", [x / norm for x in front])


def length(vector: Sequence[float]) -> float:
    """The Euclidean length; 1 for a vector of zeros, so that one can divide by it."""
    return math.sqrt(math.fsum(x * x for x in vector)) or 1.0
