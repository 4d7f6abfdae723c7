"""What every generating endpoint shares: the fields that say how to generate, and usage. No engine type.

Ranges are OpenAI's where OpenAI has the field; a range that depends on the model (context, vocabulary) is the
engine's to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import WireModel

MAX_CHOICES = 128
MAX_STOP_STRINGS = 4
MAX_STOP_TOKEN_IDS = 64

Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
StopStrings = Annotated[tuple[StopString, ...], Field(max_length=MAX_STOP_STRINGS)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class StreamOptions(WireModel):
    """`include_usage` asks for one more frame, with the usage, before the end of a stream."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"include_obfuscation"})

    include_usage: bool | None = None


class GenerationFields(WireModel):
    """How to generate: OpenAI's fields and the extensions that the field's servers agree on.

    None means "not given": the model's generation_config.json decides then, and after it OpenAI's defaults.

    Extensions: top_k (0 or -1 keeps all), min_p, min_tokens, ignore_eos, stop_token_ids, priority (larger is
    served first).
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
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "frequency_penalty": (0,),
        "logit_bias": ({},),
        "presence_penalty": (0,),
        "repetition_penalty": (1,),
    }

    model: str = Field(max_length=1024)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: Seed | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    min_tokens: int | None = Field(None, ge=0, le=2**31 - 1)
    stop: Annotated[StopStrings | None, BeforeValidator(_as_list)] = None
    stop_token_ids: tuple[TokenId, ...] | None = Field(None, max_length=MAX_STOP_TOKEN_IDS)
    ignore_eos: bool | None = None
    priority: int | None = Field(None, ge=-(2**31), le=2**31 - 1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def token_limit(self) -> int | None:
        """Most tokens to generate for one choice, or None for the model's limit."""
        return self.max_tokens

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
        return self


class ResponseModel(BaseModel):
    """A frozen value that goes onto the wire."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(ResponseModel):
    """Tokens of one response: the prompt is counted once for every `n`, a stop token counts as generated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
