"""`/v1/rerank`, as Cohere and Jina define it and vLLM serves it; also at `/rerank` and `/v2/rerank`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from cupola.protocol.base import WireModel
from cupola.protocol.embeddings import EmbeddingUsage
from cupola.protocol.generation import ResponseModel

MAX_DOCUMENTS = 10_000

Text = Annotated[str, Field(min_length=1)]


class DocumentText(BaseModel):
    """A document as an object; what else it has is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: Text


def _as_object(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


Document = Annotated[DocumentText, BeforeValidator(_as_object, json_schema_input_type=str | DocumentText)]


class RerankRequest(WireModel):
    """A query and the documents that are to be put into the order of their relevance: strings, or objects with a text.

    Pairs that are longer than what the model reads are an error, unless `truncate_prompt_tokens` cuts them (-1 stands
    for what the model reads): of each pair the longer text loses tokens at its end. `max_tokens_per_doc` cuts documents
    before. `use_activation`: true for scores between 0 and 1, false for the numbers of the model as they are; without
    it the checkpoint decides. `return_documents`: false leaves the texts out of the response.
    """

    IGNORED: ClassVar[frozenset[str]] = frozenset({"priority", "user"})
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "max_chunks_per_doc": (),
        "rank_fields": (["text"],),
        "relevant_spans": (),
    }

    model: str = Field(max_length=1024)
    query: Text
    documents: tuple[Document, ...] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    top_n: int | None = Field(None, ge=1, le=2**31 - 1)
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = Field(None, ge=1, le=2**31 - 1)
    truncate_prompt_tokens: int | None = Field(None, ge=-1)
    use_activation: bool | None = None


class RerankResult(ResponseModel):
    """A document: its place in the request, and how relevant it is."""

    index: int
    relevance_score: float
    document: DocumentText | None = None


class RerankList(ResponseModel):
    """The response, the most relevant first."""

    id: str
    model: str
    results: tuple[RerankResult, ...]
    usage: EmbeddingUsage
