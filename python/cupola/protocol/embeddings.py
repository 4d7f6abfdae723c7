"""`/v1/embeddings`, as OpenAI defines it, with vLLM's `truncate_prompt_tokens`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import WireModel
from cupola.protocol.generation import ResponseModel
from cupola.protocol.prompts import Prompt, as_prompts

MAX_INPUTS = 2048


def _not_empty(inputs: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    if not all(inputs):
        raise PydanticCustomError("empty_input", "must not be an empty string")
    return inputs


Inputs = Annotated[
    tuple[Prompt, ...],
    BeforeValidator(as_prompts),
    Field(min_length=1, max_length=MAX_INPUTS),
    AfterValidator(_not_empty),
]


class EmbeddingRequest(WireModel):
    """A text, a list of texts, a list of token ids, or a list of such lists.

    Token ids are taken as they are, special ones too. `dimensions` cuts vectors to their first components and brings
    them back to length 1; that is meant for models that were trained so. `truncate_prompt_tokens` cuts inputs that are
    longer, of a text the end and of token ids the beginning; -1 stands for what the model reads. Without it, an input
    that is too long is an error.
    """

    IGNORED: ClassVar[frozenset[str]] = frozenset({"user"})

    model: str = Field(max_length=1024)
    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    truncate_prompt_tokens: int | None = Field(None, ge=-1)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: object) -> object:
        """Some clients send the fields that they leave out as null."""
        if not isinstance(data, dict) or data.get("encoding_format", "float") is not None:
            return data
        return {name: value for name, value in data.items() if name != "encoding_format"}


class EmbeddingUsage(ResponseModel):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingData(ResponseModel):
    """One vector: a list of numbers, or its float32 bytes (little-endian) in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: tuple[float, ...] | str


class EmbeddingList(ResponseModel):
    """The response; `data` is in the order of the inputs."""

    object: Literal["list"] = "list"
    data: tuple[EmbeddingData, ...]
    model: str
    usage: EmbeddingUsage
