"""`/v1/chat/completions`: request and response as OpenAI defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from cupola.protocol.conversation import ChatMessage
from cupola.protocol.generation import GenerationFields, ResponseModel, Usage

ChatFinishReason = Literal["stop", "length"]


class ChatCompletionRequest(GenerationFields):
    """`max_completion_tokens` wins over the deprecated `max_tokens` when both are given."""

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        **GenerationFields.NEUTRAL,
        "audio": (),
        "function_call": ("none",),
        "functions": ([],),
        "logprobs": (False,),
        "modalities": (["text"],),
        "moderation": (),
        "parallel_tool_calls": (True, False),
        "reasoning_effort": ("none",),
        "response_format": ({"type": "text"},),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "top_logprobs": (0,),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class AssistantMessage(ResponseModel):
    """What the model answered."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(ResponseModel):
    """One of the `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: ChatFinishReason


class ChatCompletion(ResponseModel):
    """The whole response of a request without `stream`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: Usage
