"""`/v1/completions`: request and response as OpenAI defines them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.generation import (
    MAX_CHOICES,
    MAX_LOGPROBS,
    GenerationFields,
    ResponseModel,
    Usage,
    not_given,
)
from cupola.protocol.logprobs import CompletionLogprobs, PromptLogprobs
from cupola.protocol.prompts import Prompt, as_prompts

MAX_PROMPTS = 1024


class CompletionRequest(GenerationFields):
    """`prompt` is a string, a list of strings, a list of token ids, or a list of such lists.

    `max_tokens: 0` generates nothing: with `echo` and `logprobs` it reads the prompt's log-probabilities. `suffix` is
    what shall follow the generated text. `best_of` may only say what `n` says.
    """

    prompt: Annotated[tuple[Prompt, ...], BeforeValidator(as_prompts), Field(min_length=1, max_length=MAX_PROMPTS)]
    max_tokens: int | None = Field(None, ge=0, le=2**31 - 1)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @property
    def output_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def input_logprobs(self) -> int | None:
        if self.echo and self.logprobs is not None:
            return max(self.logprobs, self.prompt_logprobs or 0)
        return self.prompt_logprobs

    @model_validator(mode="after")
    def _check_best_of(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise PydanticCustomError(
                "best_of",
                "`best_of` ({best_of}) is only supported where it equals `n` ({n}): ask for `n` choices with "
                "`logprobs`, and keep the best",
                {"best_of": self.best_of, "n": self.n or 1, "param": "best_of"},
            )
        return self

    @model_validator(mode="after")
    def _no_echo_of_an_infilling(self) -> CompletionRequest:
        if self.suffix and self.echo:
            raise PydanticCustomError("echo_with_suffix", "`echo` cannot be combined with `suffix`", {"param": "echo"})
        return self

    @model_validator(mode="after")
    def _bound_the_choices(self) -> CompletionRequest:
        choices = len(self.prompt) * (self.n or 1)
        if choices > MAX_PROMPTS:
            raise PydanticCustomError(
                "too_many_choices",
                "{choices} completions (prompts times `n`) are more than the {limit} of one request",
                {"choices": choices, "limit": MAX_PROMPTS, "param": "n"},
            )
        return self


class CompletionChoice(ResponseModel):
    """One completion; `index` counts prompts first, then the `n` of a prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"]
    token_ids: tuple[int, ...] | None = Field(None, exclude_if=not_given)
    prompt_token_ids: tuple[int, ...] | None = Field(None, exclude_if=not_given)
    prompt_logprobs: PromptLogprobs | None = Field(None, exclude_if=not_given)


class Completion(ResponseModel):
    """The whole response of a request without `stream`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[CompletionChoice, ...]
    usage: Usage
