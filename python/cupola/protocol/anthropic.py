"""`/v1/messages` and `/v1/messages/count_tokens`: requests and responses as Anthropic defines them.

The shapes are those of the official client, version 2.11. What a client gets, it may send back: the blocks of an answer
and those of a request are the same classes. Knows no conversation (`anthropic_conversation.py`) and no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue, Tag, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import UNION_TAG, WireModel
from cupola.protocol.conversation import MAX_TOOLS
from cupola.protocol.generation import (
    EngineFields,
    GenerationFields,
    ResponseModel,
    Seed,
    StopStrings,
    Usage,
    not_given,
)
from cupola.protocol.structured import JsonSchemaFormat, ResponseFormat
from cupola.protocol.unions import only_kinds, tag_by

MAX_MESSAGES = 100_000

Id = Annotated[str, Field(min_length=1, max_length=256)]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]

# --- content --------------------------------------------------------------------------------------------------------


class TextBlock(WireModel):
    """Text. Citations come from other services' models."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"cache_control", "parsed_output"})
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"citations": ([],)}

    type: Literal["text"] = "text"
    text: str


class Base64Source(WireModel):
    """An image as data."""

    type: Literal["base64"] = "base64"
    media_type: str = Field(min_length=1, max_length=128)
    data: str


class UrlSource(WireModel):
    """An image by its address."""

    type: Literal["url"] = "url"
    url: str = Field(min_length=1)


ImageSource = Annotated[
    Annotated[Base64Source, Tag(f"{UNION_TAG}base64")] | Annotated[UrlSource, Tag(f"{UNION_TAG}url")],
    tag_by(),
    only_kinds("a source", ("base64", "url")),
]


class ImageBlock(WireModel):
    """An image."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"cache_control"})

    type: Literal["image"] = "image"
    source: ImageSource


class ThinkingBlock(WireModel):
    """What the model thought. The signature is opaque to clients; `anthropic_conversation.py` says what is in it."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(WireModel):
    """Thoughts that another service's model hid: nobody here can read them, so they are left out."""

    type: Literal["redacted_thinking"] = "redacted_thinking"
    data: str


class ToolUseBlock(WireModel):
    """A call that the model wants made."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"cache_control"})
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"caller": ({"type": "direct"},), "toolset_name": ()}

    type: Literal["tool_use"] = "tool_use"
    id: Id
    name: str
    input: dict[str, JsonValue]


def _as_text(content: object) -> object:
    """A plain string is one block: behind this line there is a single form of content."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


ResultBlock = Annotated[
    Annotated[TextBlock, Tag(f"{UNION_TAG}text")] | Annotated[ImageBlock, Tag(f"{UNION_TAG}image")],
    tag_by(),
    only_kinds("the content of a tool result", ("text", "image")),
]


class ToolResultBlock(WireModel):
    """What a call gave."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"cache_control"})
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"toolset_name": ()}

    type: Literal["tool_result"] = "tool_result"
    tool_use_id: Id
    content: Annotated[tuple[ResultBlock, ...] | None, BeforeValidator(_as_text)] = None
    is_error: bool | None = None


Block = TextBlock | ImageBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock
_BLOCKS = ("text", "image", "thinking", "redacted_thinking", "tool_use", "tool_result")
ContentBlock = Annotated[
    Annotated[TextBlock, Tag(f"{UNION_TAG}text")]
    | Annotated[ImageBlock, Tag(f"{UNION_TAG}image")]
    | Annotated[ThinkingBlock, Tag(f"{UNION_TAG}thinking")]
    | Annotated[RedactedThinkingBlock, Tag(f"{UNION_TAG}redacted_thinking")]
    | Annotated[ToolUseBlock, Tag(f"{UNION_TAG}tool_use")]
    | Annotated[ToolResultBlock, Tag(f"{UNION_TAG}tool_result")],
    tag_by(),
    only_kinds("a content block", _BLOCKS),
]
AnswerBlock = TextBlock | ThinkingBlock | ToolUseBlock
"""What the model can write."""

_OF_ROLE = {
    "user": ("text", "image", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}


class InputMessage(WireModel):
    """One turn. `content` is given as a string or a list of blocks, and kept as blocks."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[tuple[ContentBlock, ...], BeforeValidator(_as_text)]

    @model_validator(mode="after")
    def _check_kinds(self) -> InputMessage:
        allowed = _OF_ROLE[self.role]
        for block in self.content:
            if block.type not in allowed:
                raise PydanticCustomError(
                    "block_of_role",
                    "a message of role `{role}` cannot hold a block of type `{kind}`, only {allowed}",
                    {"role": self.role, "kind": block.type, "allowed": " and ".join(f"`{kind}`" for kind in allowed)},
                )
        return self


# --- tools, thinking, output ----------------------------------------------------------------------------------------


def _custom(data: object) -> object:
    """Anthropic's own tools run on its servers; they are told by their type."""
    kind = data.get("type") if isinstance(data, dict) else None
    if isinstance(kind, str) and kind != "custom":
        message = "a tool of type `{kind}` is not supported; only `custom` tools are, which the client runs"
        raise PydanticCustomError("unsupported_content", message, {"kind": kind[:64]})
    return data


class CustomTool(WireModel):
    """A function that the model may call."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"cache_control", "eager_input_streaming"})
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "allowed_callers": (["direct"],),
        "defer_loading": (False,),
        "input_examples": ([],),
    }

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, JsonValue]
    strict: bool | None = None

    _kinds = model_validator(mode="before")(_custom)


class AnthropicToolChoice(WireModel):
    """auto: the model decides; any: it has to call a tool; tool: this one; none: it must not call any."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _check_name(self) -> AnthropicToolChoice:
        if (self.name is None) == (self.type == "tool"):
            raise PydanticCustomError("tool_choice", "`name` is needed with the type `tool`, and only with it")
        return self


class ThinkingEnabled(WireModel):
    """The model thinks before it answers, at most `budget_tokens` long."""

    type: Literal["enabled"] = "enabled"
    budget_tokens: int = Field(ge=1, le=2**31 - 1)
    display: Literal["summarized", "omitted"] | None = None


class ThinkingAdaptive(WireModel):
    """The model thinks as long as it wants to."""

    type: Literal["adaptive"] = "adaptive"
    display: Literal["summarized", "omitted"] | None = None


class ThinkingDisabled(WireModel):
    """The model answers at once."""

    type: Literal["disabled"] = "disabled"


ThinkingConfig = Annotated[
    Annotated[ThinkingEnabled, Tag(f"{UNION_TAG}enabled")]
    | Annotated[ThinkingAdaptive, Tag(f"{UNION_TAG}adaptive")]
    | Annotated[ThinkingDisabled, Tag(f"{UNION_TAG}disabled")],
    tag_by(),
    only_kinds("thinking", ("enabled", "adaptive", "disabled")),
]


class JsonOutputFormat(WireModel):
    """The text is JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: dict[str, JsonValue] = Field(alias="schema")


class OutputConfig(WireModel):
    """How much the model shall think, and what its text must look like."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonOutputFormat | None = None


# --- requests -------------------------------------------------------------------------------------------------------

_KEEP_ALL: JsonValue = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}


class MessagesContext(WireModel):
    """What the model reads: the fields that both endpoints share, and `POST /v1/messages/count_tokens` has.

    `output_format` is the older name of `output_config.format`. Extension: chat_template_kwargs, further variables of
    the chat template.
    """

    IGNORED: ClassVar[frozenset[str]] = frozenset(
        {
            "cache_control",
            "diagnostics",
            "inference_geo",
            "metadata",
            "service_tier",
            "speed",
            "user_profile_id",
            "workspace_id",
        }
    )
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "container": (),
        "context_management": ({"edits": []}, _KEEP_ALL),
        "mcp_servers": ([],),
    }

    model: str = Field(max_length=1024)
    messages: tuple[InputMessage, ...] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: Annotated[tuple[TextBlock, ...] | None, BeforeValidator(_as_text)] = None
    tools: tuple[CustomTool, ...] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: AnthropicToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: JsonOutputFormat | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None

    @property
    def thinking_is_shown(self) -> bool:
        """Whether the client wants to read what the model thinks."""
        return not isinstance(self.thinking, ThinkingEnabled | ThinkingAdaptive) or self.thinking.display != "omitted"


class MessagesRequest(MessagesContext, EngineFields):
    """`POST /v1/messages`.

    Extensions: seed, min_p, repetition_penalty, chat_template_kwargs, and those of EngineFields.
    """

    max_tokens: int = Field(ge=0, le=2**31 - 1)
    stop_sequences: StopStrings | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: Seed | None = None
    stream: bool | None = None

    @model_validator(mode="after")
    def _check_budget(self) -> MessagesRequest:
        if isinstance(self.thinking, ThinkingEnabled) and self.thinking.budget_tokens >= self.max_tokens:
            raise PydanticCustomError(
                "budget_tokens",
                "it has to be less than `max_tokens` ({limit}), which counts the thinking too",
                {"limit": self.max_tokens, "param": "thinking.budget_tokens"},
            )
        return self

    @property
    def generation_fields(self) -> GenerationFields:
        """How to generate, as the other endpoints say it."""
        found = self.output_format if self.output_config is None else self.output_config.format or self.output_format
        shape = None
        if found is not None:
            schema = JsonSchemaFormat(name=None, schema=found.json_schema)
            shape = ResponseFormat(type="json_schema", json_schema=schema)
        return _Generation(
            stop=self.stop_sequences, response_format=shape, **{name: getattr(self, name) for name in _SHARED}
        )


class _Generation(GenerationFields):
    """No tokens at all are welcome here: that fills the prefix cache."""

    max_tokens: int | None = Field(None, ge=0, le=2**31 - 1)


_SHARED = tuple(name for name in GenerationFields.model_fields if name in MessagesRequest.model_fields)

# --- responses ------------------------------------------------------------------------------------------------------


class MessagesOutputDetails(ResponseModel):
    """Of the tokens that were generated, those of thinking, its delimiters included."""

    thinking_tokens: int


class MessagesUsage(ResponseModel):
    """Tokens. Those of the prompt are `input_tokens` and, beside them, those that the prefix cache had already."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: MessagesOutputDetails | None = Field(None, exclude_if=not_given)

    @classmethod
    def of(cls, usage: Usage) -> MessagesUsage:
        """From the counts that all endpoints share."""
        cached = usage.prompt_tokens_details.cached_tokens
        return cls(
            input_tokens=usage.prompt_tokens - cached,
            cache_read_input_tokens=cached,
            output_tokens=usage.completion_tokens,
            output_tokens_details=MessagesOutputDetails(thinking_tokens=usage.reasoning_tokens),
        )


class AnthropicMessage(ResponseModel):
    """The whole response of a request without `stream`."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[AnswerBlock, ...]
    stop_reason: StopReason | None
    stop_sequence: str | None = None
    usage: MessagesUsage


class TokensCount(ResponseModel):
    """How many tokens a request has."""

    input_tokens: int
