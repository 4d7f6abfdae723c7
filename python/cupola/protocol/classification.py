"""`/classify`: the labels of texts, in vLLM's shape."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cupola.protocol.base import WireModel
from cupola.protocol.embeddings import EmbeddingUsage, Inputs
from cupola.protocol.generation import ResponseModel


class ClassifyRequest(WireModel):
    """A text, a list of texts, a list of token ids, or a list of such lists; the rest is as in `RerankRequest`."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"priority", "user"})

    model: str = Field(max_length=1024)
    input: Inputs
    truncate_prompt_tokens: int | None = Field(None, ge=-1)
    use_activation: bool | None = None


class LabelScores(ResponseModel):
    """One text: the label of the highest score, and the scores of all labels in their order."""

    index: int
    label: str
    probs: tuple[float, ...]
    num_classes: int


class ClassifyList(ResponseModel):
    """The response; `data` is in the order of the inputs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: tuple[LabelScores, ...]
    usage: EmbeddingUsage
