"""`/v1/score` with pairs of texts, as vLLM defines it. What a generating model answers there is in `score.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, RootModel, Tag, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import UNION_TAG, WireModel
from cupola.protocol.embeddings import EmbeddingUsage
from cupola.protocol.generation import ResponseModel
from cupola.protocol.rerank import MAX_DOCUMENTS, Text
from cupola.protocol.score import ScoreList, ScoreRequest

_PAIRS, _CONTINUATIONS = f"{UNION_TAG}pairs", f"{UNION_TAG}continuations"


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Texts = Annotated[
    tuple[Text, ...],
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    Field(min_length=1, max_length=MAX_DOCUMENTS),
]


class SimilarityRequest(WireModel):
    """Texts that are compared: one with each of many, or as many with as many. The rest is as in `RerankRequest`."""

    model: str = Field(max_length=1024)
    text_1: Texts
    text_2: Texts
    truncate_prompt_tokens: int | None = Field(None, ge=-1)
    use_activation: bool | None = None

    @model_validator(mode="after")
    def _pairs_fit(self) -> SimilarityRequest:
        if len(self.text_1) not in (1, len(self.text_2)):
            message = "`text_1` has {first} texts and `text_2` {second}; it may have one, or as many"
            numbers = {"first": len(self.text_1), "second": len(self.text_2), "param": "text_1"}
            raise PydanticCustomError("pairs_fit", message, numbers)
        return self

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each text of the second list with its partner."""
        firsts = self.text_1 * len(self.text_2) if len(self.text_1) == 1 else self.text_1
        return list(zip(firsts, self.text_2, strict=True))


class PairScore(ResponseModel):
    """One pair."""

    index: int
    object: Literal["score"] = "score"
    score: float


class SimilarityList(ResponseModel):
    """The response; `data` is in the order of the pairs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: tuple[PairScore, ...]
    usage: EmbeddingUsage


def _kind(value: object) -> str:
    keys = value.keys() if isinstance(value, Mapping) else ()
    return _PAIRS if "text_1" in keys or "text_2" in keys else _CONTINUATIONS


class AnyScoreRequest(
    RootModel[
        Annotated[
            Annotated[SimilarityRequest, Tag(_PAIRS)] | Annotated[ScoreRequest, Tag(_CONTINUATIONS)],
            Discriminator(_kind),
        ]
    ]
):
    """Pairs of texts for a reranker or an encoder, or continuations of a prompt for a model that generates."""


class AnyScoreList(RootModel[SimilarityList | ScoreList]):
    """What was asked for."""
