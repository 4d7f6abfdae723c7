"""`/v1/chat/completions`: request and response as OpenAI defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.conversation import ChatMessage
from cupola.protocol.generation import MAX_LOGPROBS, GenerationFields, ResponseModel, Usage, not_given
from cupola.protocol.logprobs import ChatLogprobs, PromptLogprobs

ChatFinishReason = Literal["stop", "length"]


class ChatCompletionRequest(GenerationFields):
    """`max_completion_tokens` wins over the deprecated `max_tokens` when both are given."""

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "audio": (),
        "function_call": ("none",),
        "functions": ([],),
        "modalities": (["text"],),
        "moderation": (),
        "parallel_tool_calls": (True, False),
        "reasoning_effort": ("none",),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def output_logprobs(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatCompletionRequest:
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError(
                "top_logprobs_without_logprobs",
                "`top_logprobs` is only allowed with `logprobs: true`",
                {"param": "top_logprobs"},
            )
        return self


class AssistantMessage(ResponseModel):
    """What the model answered."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(ResponseModel):
    """One of the `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason
    token_ids: tuple[int, ...] | None = Field(None, exclude_if=not_given)


class ChatCompletion(ResponseModel):
    """The whole response of a request without `stream`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: Usage
    prompt_token_ids: tuple[int, ...] | None = Field(None, exclude_if=not_given)
    prompt_logprobs: PromptLogprobs | None = Field(None, exclude_if=not_given)
