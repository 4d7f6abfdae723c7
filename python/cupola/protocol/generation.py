"""What every generating endpoint shares: the fields that say how to generate, and usage. No engine type.

Ranges are OpenAI's where OpenAI has the field; a range that depends on the model (context, vocabulary) is the
engine's to check.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import WireModel
from cupola.protocol.structured import StructuredFields

MAX_CHOICES = 128
MAX_STOP_STRINGS = 32
MAX_STOP_TOKEN_IDS = 64
MAX_BIASED = 1024
MAX_BAD_WORDS = 1024
MAX_LOGPROBS = 20

Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
StopStrings = Annotated[tuple[StopString, ...], Field(max_length=MAX_STOP_STRINGS)]
Bias = Annotated[float, Field(ge=-100, le=100)]
BiasedId = Annotated[int, Field(ge=0, le=2**31 - 1)]  # a string in JSON, where every key is one
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class StreamOptions(WireModel):
    """`include_usage` asks for one more frame, with the usage, before the end of a stream."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"include_obfuscation"})

    include_usage: bool | None = None


class EngineFields(WireModel):
    """How the engine shall treat a request, whatever it generates: extensions of every endpoint that uses the model.

    priority: larger is served first. timeout: seconds until the request is ended. cache_salt: only requests with the
    same one share computed prompts. pin_prefix: true keeps the computed prompt in the prefix cache, false lets it go
    again.
    """

    priority: int | None = Field(None, ge=-(2**31) + 1, le=2**31 - 1)
    timeout: float | None = Field(None, gt=0, le=7 * 24 * 3600)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    pin_prefix: bool | None = None


class SamplingFields(EngineFields):
    """How the next token is chosen and where the text ends, under the same names in every shape of a request."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: Seed | None = None
    min_tokens: int | None = Field(None, ge=0, le=2**31 - 1)
    stop: Annotated[StopStrings | None, BeforeValidator(_as_list)] = None
    stop_token_ids: tuple[TokenId, ...] | None = Field(None, max_length=MAX_STOP_TOKEN_IDS)
    ignore_eos: bool | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    logit_bias: dict[BiasedId, Bias] | None = Field(None, max_length=MAX_BIASED)
    allowed_token_ids: tuple[TokenId, ...] | None = Field(None, min_length=1)
    bad_words: tuple[StopString, ...] | None = Field(None, max_length=MAX_BAD_WORDS)


class GenerationFields(SamplingFields, StructuredFields):
    """How to generate: OpenAI's fields and the extensions that the field's servers agree on.

    None means "not given": the model's generation_config.json decides then, and after it OpenAI's defaults.

    Extensions: top_k (0 or -1 keeps all), min_p, min_tokens, ignore_eos, stop_token_ids, repetition_penalty,
    allowed_token_ids, bad_words, prompt_logprobs, return_token_ids, and those of EngineFields
    and StructuredFields.
    """

    IGNORED: ClassVar[frozenset[str]] = frozenset(
        {
            "metadata",
            "prediction",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
        }
    )
    model: str = Field(max_length=1024)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    return_token_ids: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def token_limit(self) -> int | None:
        """Most tokens to generate for one choice, or None for the model's limit."""
        return self.max_tokens

    @property
    def output_logprobs(self) -> int | None:
        """How many of the most probable tokens are reported beside each token; None: no log-probabilities at all."""
        return None

    @property
    def input_logprobs(self) -> int | None:
        """The same for the tokens of the prompt."""
        return self.prompt_logprobs

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage frame."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @model_validator(mode="after")
    def _check_together(self) -> GenerationFields:
        limit = self.token_limit
        if limit is not None and self.min_tokens is not None and self.min_tokens > limit:
            raise PydanticCustomError(
                "min_tokens_above_max",
                "`min_tokens` ({min_tokens}) is greater than the most tokens allowed ({limit})",
                {"min_tokens": self.min_tokens, "limit": limit, "param": "min_tokens"},
            )
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "stream_options_without_stream",
                "`stream_options` is only allowed with `stream: true`",
                {"param": "stream_options"},
            )
        if self.prompt_logprobs is not None and self.stream:
            raise PydanticCustomError(
                "prompt_logprobs_with_stream",
                "`prompt_logprobs` is only allowed without `stream`",
                {"param": "prompt_logprobs"},
            )
        return self


class ResponseModel(BaseModel):
    """A frozen value that goes onto the wire."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptTokensDetails(ResponseModel):
    """Of the tokens of the prompts, those that were in the prefix cache already."""

    cached_tokens: int


class CompletionTokensDetails(ResponseModel):
    """Of the tokens that were generated, those of reasoning, its delimiters included."""

    reasoning_tokens: int


def not_given(value: object) -> bool:
    """For fields of a response that are there only for those who asked: `Field(None, exclude_if=not_given)`."""
    return value is None


class Usage(ResponseModel):
    """Tokens of one response: the prompt is counted once for every `n`, a stop token counts as generated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | None = Field(None, exclude_if=not_given)

    @property
    def reasoning_tokens(self) -> int:
        """Of the completion's tokens, those of reasoning."""
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else 0

    @classmethod
    def of(cls, prompt: int, completion: int, cached: int, reasoning: int | None = None) -> Usage:
        """The sums that go with these counts; `reasoning` is None where replies are not parsed."""
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
            completion_tokens_details=None
            if reasoning is None
            else CompletionTokensDetails(reasoning_tokens=reasoning),
        )
