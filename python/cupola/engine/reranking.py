"""How well texts fit each other: by a reranker, which reads them as a pair, or by the cosine of their embeddings."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cupola.engine.classification import Classifier
from cupola.engine.embedding import Embedder, length
from cupola.engine.encoder_text import Pair
from cupola.errors import ContextLengthError, RequestError


@dataclass(frozen=True, slots=True)
class Similarity:
    """How well two texts fit each other.

    Args:
        score: of a reranker, by default between 0 and 1; of embeddings, their cosine.
        num_tokens: of both texts, special ones included.
    """

    score: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document in the order of relevance.

    Args:
        index: its place among the documents that were given.
        score, num_tokens: as of a `Similarity` of query and document.
    """

    index: int
    score: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How pairs are read, and scored.

    Args:
        truncate: cut pairs to that many tokens, or with -1 to what the model reads; None: they have to fit.
        second_limit: cut second texts to that many tokens before; None: as they are.
        activate: True: scores are between 0 and 1; False: a reranker's numbers as they are; None: as the checkpoint
            says.
        field: what holds the pairs, for errors.
    """

    truncate: int | None = None
    second_limit: int | None = None
    activate: bool | None = None
    field: str = "pairs"


async def similarities(model: Embedder | Classifier, pairs: Sequence[Pair], options: PairOptions) -> list[Similarity]:
    """The scores of pairs, in their order. Raises as `AsyncEngine.similarity` does."""
    if isinstance(model, Embedder):
        return await _cosines(model, pairs, options)
    labels = model.info.labels
    if len(labels) != 1:
        raise RequestError(
            f"the model has {len(labels)} labels, but a reranker has one",
            param="model",
            code="unsupported_model",
            hint="a classifier answers `classify`",
        )
    found = await model.classify_pairs(pairs, options.truncate, options.second_limit, options.activate, options.field)
    return [Similarity(one.scores[0], one.num_tokens) for one in found]


def ranked(scores: Sequence[Similarity], top_n: int | None) -> list[Ranked]:
    """The best first, and among equals the earlier one."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i].score)
    return [Ranked(i, scores[i].score, scores[i].num_tokens) for i in order[:top_n]]


async def _cosines(model: Embedder, pairs: Sequence[Pair], options: PairOptions) -> list[Similarity]:
    """Every text is embedded once, however many pairs it belongs to."""
    most = model.text.max_tokens
    cut = options.truncate if options.second_limit is None else min(options.second_limit, most)
    firsts = list(dict.fromkeys(first for first, _ in pairs))
    seconds = [second for _, second in pairs]
    try:
        vectors, found = await asyncio.gather(
            model.embed(firsts, truncate=options.truncate), model.embed(seconds, truncate=cut)
        )
    except (RequestError, ContextLengthError) as error:
        error.param = options.field if error.param == "input" else error.param
        raise
    queries = dict(zip(firsts, vectors, strict=True))
    return [
        Similarity(_cosine(queries[first].vector, one.vector), queries[first].num_tokens + one.num_tokens)
        for (first, _), one in zip(pairs, found, strict=True)
    ]


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (length(a) * length(b))
