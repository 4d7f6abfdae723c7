"""`/v1/chat/completions`: request and response as OpenAI defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.chat_messages import ChatMessage, ChatTool, ChatToolChoice, tool_choice
from cupola.protocol.conversation import MAX_TOOLS, Conversation
from cupola.protocol.generation import MAX_LOGPROBS, GenerationFields, ResponseModel, Usage, not_given
from cupola.protocol.logprobs import ChatLogprobs, PromptLogprobs

ChatFinishReason = Literal["stop", "length", "tool_calls"]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatCompletionRequest(GenerationFields):
    """`max_completion_tokens` wins over the deprecated `max_tokens` when both are given."""

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "audio": (),
        "function_call": ("none",),
        "functions": ([],),
        "modalities": (["text"],),
        "moderation": (),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    HINTS: ClassVar[Mapping[str, str]] = {
        "function_call": "use `tool_choice`",
        "functions": "use `tools`",
    }

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    tools: tuple[ChatTool, ...] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: ChatToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    enable_thinking: bool | None = None
    thinking_token_budget: int | None = Field(None, ge=0, le=2**31 - 1)

    @property
    def conversation(self) -> Conversation:
        """What the model shall go on with."""
        arguments = dict(self.chat_template_kwargs or {})
        if self.enable_thinking is not None:
            arguments["enable_thinking"] = self.enable_thinking
        return Conversation(
            messages=tuple(message.message for message in self.messages),
            tools=tuple(tool.tool for tool in self.tools or ()),
            tool_choice=tool_choice(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls is not False,
            reasoning_effort=self.reasoning_effort,
            thinking_budget=self.thinking_token_budget,
            template_arguments=arguments,
        )

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


class FunctionCall(ResponseModel):
    """The function of a call; `arguments` is JSON text, as the model wrote it."""

    name: str
    arguments: str


class ToolCallItem(ResponseModel):
    """A call that the model wants made."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class AssistantMessage(ResponseModel):
    """What the model answered. `content` is null where it only called tools."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | None = Field(None, exclude_if=not_given)
    tool_calls: tuple[ToolCallItem, ...] | None = Field(None, exclude_if=not_given)


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
