"""`/v1/responses`: requests as OpenAI defines them, with the extensions that every generating endpoint has.

The items of `input` and `output` are in `responses_items`, the response is in `responses_object`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import WireModel
from cupola.protocol.chat import ReasoningEffort
from cupola.protocol.conversation import MAX_TOOLS, Tool, ToolChoice
from cupola.protocol.generation import MAX_LOGPROBS, GenerationFields, SamplingFields, not_given
from cupola.protocol.responses_items import Id, InputItem
from cupola.protocol.structured import JsonSchemaFormat, ResponseFormat, StructuredOutputs
from cupola.protocol.unions import only_functions

Include = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]
"""What OpenAI can include. Only `message.output_text.logprobs` adds anything here: the rest are of hosted tools, or of
reasoning that is kept secret."""

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
ToolName = Annotated[str, Field(min_length=1, max_length=64)]


# --- tools ----------------------------------------------------------------------------------------------------------


class FunctionTool(WireModel):
    """A function that the model may call, and the JSON schema of its arguments."""

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "allowed_callers": (["direct"],),
        "async": (False,),
        "defer_loading": (False,),
        "output_schema": (),
    }

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None

    _kinds = model_validator(mode="before")(only_functions)

    @property
    def tool(self) -> Tool:
        """As the conversation has it."""
        return Tool(self.name, self.description, self.parameters or {}, bool(self.strict))


class AllowedTool(WireModel):
    """One of the tools that a choice allows."""

    type: Literal["function"]
    name: ToolName

    _kinds = model_validator(mode="before")(only_functions)


AllowedTools = Annotated[tuple[AllowedTool, ...], Field(min_length=1, max_length=MAX_TOOLS)]


def _choice_object(data: object) -> object:
    """`auto` and `{"type": "auto"}` are one form behind this line."""
    return {"type": data} if isinstance(data, str) else data


class ToolChoiceField(WireModel):
    """Whether the model may call tools (auto), must (required), must not (none), must call this one (function: `name`),
    or may or must call some of them (allowed_tools: `mode` and `tools`)."""

    type: Literal["none", "auto", "required", "function", "allowed_tools"]
    name: ToolName | None = Field(default=None, exclude_if=not_given)
    mode: Literal["auto", "required"] | None = Field(default=None, exclude_if=not_given)
    tools: tuple[AllowedTool, ...] | None = Field(
        default=None, min_length=1, max_length=MAX_TOOLS, exclude_if=not_given
    )

    @model_validator(mode="after")
    def _has_what_it_says(self) -> ToolChoiceField:
        given = (self.name is not None, self.mode is not None, self.tools is not None)
        wanted = {"function": (True, False, False), "allowed_tools": (False, True, True)}
        if given != wanted.get(self.type, (False, False, False)):
            raise PydanticCustomError(
                "tool_choice", "the type `function` needs `name`, `allowed_tools` needs `mode` and `tools`"
            )
        return self

    @property
    def choice(self) -> ToolChoice:
        """As the conversation has it."""
        if self.type == "function":
            return ToolChoice("named", self.name)
        if self.type == "allowed_tools":
            return ToolChoice("required" if self.mode == "required" else "auto")
        return ToolChoice(self.type)

    @property
    def shown(self) -> Literal["none", "auto", "required"] | ToolChoiceField:
        """As a response repeats it: the plain modes as words."""
        if self.type == "function" or self.type == "allowed_tools":
            return self
        return self.type

    @property
    def allowed(self) -> frozenset[str] | None:
        """The names of the only tools that may be called; None: no tool is left out."""
        return None if self.tools is None else frozenset(tool.name for tool in self.tools)


# --- text and reasoning ---------------------------------------------------------------------------------------------


class TextFormat(WireModel):
    """Plain text, any JSON object, or JSON that fits a schema. `strict` changes nothing: every schema is kept to."""

    model_config = ConfigDict(serialize_by_alias=True)

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(default=None, min_length=1, max_length=256, exclude_if=not_given)
    description: str | None = Field(default=None, exclude_if=not_given)
    strict: bool | None = Field(default=None, exclude_if=not_given)
    json_schema: dict[str, JsonValue] | None = Field(default=None, alias="schema", exclude_if=not_given)

    @model_validator(mode="after")
    def _has_what_it_says(self) -> TextFormat:
        wanted = self.type == "json_schema"
        if (self.json_schema is not None, self.name is not None) != (wanted, wanted):
            raise PydanticCustomError(
                "text_format", "`name` and `schema` are needed with the type `json_schema`, and only with it"
            )
        return self

    @property
    def response_format(self) -> ResponseFormat | None:
        """The same in the shape of chat; None for plain text."""
        if self.json_schema is not None:
            schema = JsonSchemaFormat(name=self.name, strict=self.strict, schema=self.json_schema)
            return ResponseFormat(type="json_schema", json_schema=schema)
        return ResponseFormat(type="json_object") if self.type == "json_object" else None


class TextConfig(WireModel):
    """What the text has to look like."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningConfig(WireModel):
    """How much the model shall think (`effort`), and how its thoughts are shown.

    Without `summary` they are the content of reasoning items; with it they are their summary, in full, since nobody
    shortens them here. `generate_summary` is its older name.
    """

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"context": ("auto",), "mode": ("standard",)}

    effort: ReasoningEffort | None = None
    summary: Literal["auto", "detailed"] | None = None
    generate_summary: Literal["auto", "detailed"] | None = Field(default=None, exclude_if=not_given)

    @property
    def shown_summary(self) -> Literal["auto", "detailed"] | None:
        """The wish for a summary, under whichever name it came."""
        return self.summary or self.generate_summary


# --- requests -------------------------------------------------------------------------------------------------------


class ResponseStreamOptions(WireModel):
    """Nothing that changes a stream here: there is no obfuscation."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"include_obfuscation"})


def _one_message(value: object) -> object:
    """A string is the text of one user message."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


Input = Annotated[tuple[InputItem, ...] | None, BeforeValidator(_one_message)]
ToolChoiceValue = Annotated[ToolChoiceField | None, BeforeValidator(_choice_object)]


class ContextFields(WireModel):
    """What the model reads: the fields that `/v1/responses` and `/v1/responses/input_tokens` share.

    truncation: `auto` drops the oldest turns of a conversation that does not fit, `disabled` refuses it.
    chat_template_kwargs, enable_thinking, thinking_token_budget: as `/v1/chat/completions` takes them.
    """

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"conversation": ()}

    model: str = Field(max_length=1024)
    input: Input = None
    instructions: str | None = None
    previous_response_id: Id | None = None
    tools: tuple[FunctionTool, ...] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoiceValue = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningConfig | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    enable_thinking: bool | None = None
    thinking_token_budget: int | None = Field(None, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _has_input(self) -> ContextFields:
        if not self.input and self.previous_response_id is None:
            raise PydanticCustomError(
                "missing_input", "`input` has to be a string or at least one item", {"param": "input"}
            )
        return self

    @property
    def response_format(self) -> ResponseFormat | None:
        """The shape of the text, as chat says it."""
        return None if self.text is None or self.text.format is None else self.text.format.response_format


class InputTokensRequest(ContextFields):
    """`POST /v1/responses/input_tokens`: how many tokens a request would have."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"personality"})


class ResponseRequest(ContextFields, SamplingFields):
    """`POST /v1/responses`.

    The extensions are those of the other generating endpoints (`SamplingFields`), under the same names.
    """

    IGNORED: ClassVar[frozenset[str]] = frozenset({"prompt_cache_options"})
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        **ContextFields.NEUTRAL,
        "access_programs": (),
        "background": (False,),
        "context_management": ([],),
        "image": (),
        "moderation": (),
        "prompt": (),
    }

    include: tuple[Include, ...] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    max_tool_calls: int | None = Field(default=None, ge=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    user: str | None = None

    structured_outputs: StructuredOutputs | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the text's log-probabilities were asked for."""
        return "message.output_text.logprobs" in (self.include or ()) or bool(self.top_logprobs)

    @property
    def summarized(self) -> bool:
        """Whether thoughts go into summaries."""
        return self.reasoning is not None and self.reasoning.shown_summary is not None

    @property
    def generation_fields(self) -> GenerationFields:
        """How to generate, as the other endpoints say it."""
        return _ResponseGeneration(
            top_logprobs=self.top_logprobs or 0 if self.wants_logprobs else None,
            max_tokens=self.max_output_tokens,
            response_format=self.response_format,
            **{name: getattr(self, name) for name in _SHARED},
        )

    @model_validator(mode="after")
    def _check_together(self) -> ResponseRequest:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "stream_options_without_stream",
                "`stream_options` is only allowed with `stream: true`",
                {"param": "stream_options"},
            )
        if self.structured_outputs is not None and self.response_format is not None:
            raise PydanticCustomError(
                "several_constraints",
                "`structured_outputs` cannot be combined with `text.format`: the text can follow one of them only",
                {"param": "structured_outputs"},
            )
        limit = self.max_output_tokens
        if limit is not None and self.min_tokens is not None and self.min_tokens > limit:
            raise PydanticCustomError(
                "min_tokens_above_max",
                "`min_tokens` ({min_tokens}) is greater than `max_output_tokens` ({limit})",
                {"min_tokens": self.min_tokens, "limit": limit, "param": "min_tokens"},
            )
        return self


class _ResponseGeneration(GenerationFields):
    """The shared fields of a request, with the log-probabilities of its text."""

    top_logprobs: int | None = None

    @property
    def output_logprobs(self) -> int | None:
        return self.top_logprobs


_SHARED = tuple(ResponseRequest.model_fields.keys() & GenerationFields.model_fields.keys() - {"stream_options"})
