"""What `/v1/responses` answers with: the response, lists of items, and the smaller objects. No server, no engine."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import Field
from pydantic_core import to_json

from cupola.protocol.errors import ApiError
from cupola.protocol.generation import ResponseModel, Usage
from cupola.protocol.responses import (
    FunctionTool,
    ReasoningConfig,
    ResponseRequest,
    TextConfig,
    TextFormat,
    ToolChoiceField,
)
from cupola.protocol.responses_items import Item, OutputItem, new_id

ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
ErrorCode = Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]


class ResponseError(ResponseModel):
    """Why a response failed."""

    code: ErrorCode
    message: str


class IncompleteDetails(ResponseModel):
    """Why a response was cut short."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class InputTokensDetails(ResponseModel):
    """Of the input, what the prefix cache had already. Nothing is charged for writing to it."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(ResponseModel):
    """Of the output, what was reasoning."""

    reasoning_tokens: int


class ResponseUsage(ResponseModel):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> ResponseUsage:
        """The same numbers under this API's names."""
        return cls(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
            total_tokens=usage.total_tokens,
        )


class ResponseObject(ResponseModel):
    """The response: what was asked, as it was understood, and what came of it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: ResponseStatus = "in_progress"
    background: Literal[False] = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    model: str
    output: tuple[OutputItem, ...] = ()
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning: ReasoningConfig
    safety_identifier: str | None = None
    service_tier: Literal["default"] = "default"
    store: bool = True
    temperature: float
    text: TextConfig
    tool_choice: Literal["none", "auto", "required"] | ToolChoiceField
    tools: tuple[FunctionTool, ...] = ()
    top_logprobs: int = 0
    top_p: float
    truncation: Literal["auto", "disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None

    @classmethod
    def begun(cls, request: ResponseRequest, model: str, temperature: float, top_p: float) -> ResponseObject:
        """A response that has no output yet.

        Args:
            model: the name that responses carry.
            temperature, top_p: what the model uses where the request does not say.
        """
        text, reasoning = request.text or TextConfig(), request.reasoning or ReasoningConfig()
        choice, retention = request.tool_choice, request.prompt_cache_retention
        return cls(
            id=new_id("resp"),
            created_at=int(time.time()),
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            max_tool_calls=request.max_tool_calls,
            metadata=request.metadata or {},
            model=model,
            parallel_tool_calls=request.parallel_tool_calls is not False,
            previous_response_id=request.previous_response_id,
            prompt_cache_key=request.prompt_cache_key,
            prompt_cache_retention="in_memory" if retention == "in-memory" else retention,
            reasoning=ReasoningConfig(effort=reasoning.effort, summary=reasoning.shown_summary),
            safety_identifier=request.safety_identifier,
            store=request.store is not False,
            temperature=temperature if request.temperature is None else request.temperature,
            text=TextConfig(format=text.format or TextFormat(type="text"), verbosity="medium"),
            tool_choice="auto" if choice is None else choice.shown,
            tools=tuple(tool.model_copy(update={"strict": bool(tool.strict)}) for tool in request.tools or ()),
            top_logprobs=request.top_logprobs or 0,
            top_p=top_p if request.top_p is None else request.top_p,
            truncation=request.truncation or "disabled",
            user=request.user,
        )

    def ended(
        self,
        status: ResponseStatus,
        output: tuple[OutputItem, ...],
        usage: Usage,
        error: ResponseError | None = None,
    ) -> ResponseObject:
        """The response with its outcome."""
        return self.model_copy(
            update={
                "status": status,
                "output": output,
                "usage": ResponseUsage.of(usage),
                "error": error,
                "completed_at": int(time.time()) if status == "completed" else None,
                "incomplete_details": IncompleteDetails() if status == "incomplete" else None,
            }
        )


class DeletedResponse(ResponseModel):
    """A response that is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ItemList(ResponseModel):
    """One page of items; the ids are null where it is empty."""

    object: Literal["list"] = "list"
    data: tuple[Item, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(ResponseModel):
    """How many tokens a request would have."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


def error_fields(error: ApiError) -> bytes:
    """The members of an error event."""
    return b'"code":%b,"message":%b,"param":%b' % tuple(map(to_json, (error.code, error.message, error.param)))
