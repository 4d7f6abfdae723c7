"""`/v1/score`: log-probabilities of given continuations. The shape is Cupola's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.generation import EngineFields, ResponseModel, TokenId, Usage
from cupola.protocol.logprobs import ContentLogprob

MAX_CONTINUATIONS = 1024

TokenIds = Annotated[tuple[TokenId, ...], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]


class ScoreRequest(EngineFields):
    """`prompt` or `prompt_token_ids`, and what may follow it: texts or lists of token ids.

    `top_logprobs` asks for that many of the most probable tokens beside each one.
    """

    model: str = Field(max_length=1024)
    prompt: Text | TokenIds | None = None
    prompt_token_ids: TokenIds | None = None
    continuations: tuple[Text | TokenIds, ...] = Field(min_length=1, max_length=MAX_CONTINUATIONS)
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @model_validator(mode="after")
    def _one_prompt(self) -> ScoreRequest:
        if (self.prompt is None) == (self.prompt_token_ids is None):
            raise PydanticCustomError("one_prompt", "give either `prompt` or `prompt_token_ids`", {"param": "prompt"})
        return self


class ScoredContinuation(ResponseModel):
    """One continuation. `logprobs` has one number for each token, `sum` is their sum.

    `is_greedy` says whether greedy decoding would have generated just this.
    """

    index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sum: float
    is_greedy: bool
    content: tuple[ContentLogprob, ...]


class ScoreList(ResponseModel):
    """The response; `data` is in the order of `continuations`."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: tuple[ScoredContinuation, ...]
    usage: Usage
