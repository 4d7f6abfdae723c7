"""Messages and tools in the shape of `/v1/chat/completions`, and how they become the shared ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import UNION_TAG, WireModel
from cupola.protocol.conversation import ImagePart, Message, Part, Role, TextPart, Tool, ToolCall, ToolChoice
from cupola.protocol.unions import only_functions


class ImageUrl(WireModel):
    """Where an image is: a URL, or the image itself as a `data:` URL."""

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] = "auto"


class ContentPart(WireModel):
    """One piece of a message: text, or an image. A refusal that a client sends back counts as text."""

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"annotations": ([],)}
    IGNORED: ClassVar[frozenset[str]] = frozenset({"cache_control"})

    type: Literal["text", "image_url", "refusal"]
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_other_types(cls, data: object) -> object:
        kind = data.get("type") if isinstance(data, dict) else None
        if isinstance(kind, str) and kind not in ("text", "image_url", "refusal"):
            raise PydanticCustomError(
                "unsupported_content",
                "content parts of type `{kind}` are not supported; `text` and `image_url` are",
                {"kind": kind[:64]},
            )
        return data

    @model_validator(mode="after")
    def _has_what_it_says(self) -> ContentPart:
        if getattr(self, self.type) is None:
            raise PydanticCustomError(
                "content_part", "a content part of type `{kind}` needs the field `{kind}`", {"kind": self.type}
            )
        return self

    @property
    def part(self) -> Part:
        """As the conversation has it."""
        if self.image_url is not None:
            return ImagePart(self.image_url.url, self.image_url.detail)
        return TextPart(self.text or self.refusal or "")


def _as_parts(content: object) -> object:
    """A plain string is one text part: behind this line there is a single form of content."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class CalledFunction(WireModel):
    """The function of a call that a client sends back."""

    name: str
    arguments: str = ""


class ChatToolCall(WireModel):
    """A call that the assistant made; `index` comes from clients that put a stream together."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"index"})

    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: CalledFunction

    @property
    def call(self) -> ToolCall:
        """As the conversation has it."""
        return ToolCall(self.id, self.function.name, self.function.arguments)


class ChatMessage(WireModel):
    """One turn. `content` is given as a string or a list of parts, and kept as parts.

    Neutral fields are those that a client echoes when it sends back a message that it received. `reasoning` is the
    other name under which servers give `reasoning_content`.
    """

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "refusal": (),
        "annotations": ([],),
        "audio": (),
        "function_call": (),
    }

    role: Role
    content: Annotated[tuple[ContentPart, ...] | None, BeforeValidator(_as_parts)] = None
    name: str | None = None
    tool_calls: tuple[ChatToolCall, ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @model_validator(mode="after")
    def _only_an_assistant_may_be_silent(self) -> ChatMessage:
        if not self.content and self.role != "assistant":
            raise PydanticCustomError(
                "missing_content", "a message of role `{role}` needs `content`", {"role": self.role}
            )
        return self

    @property
    def message(self) -> Message:
        """As the conversation has it."""
        return Message(
            role=self.role,
            content=tuple(part.part for part in self.content or ()),
            name=self.name,
            tool_calls=tuple(call.call for call in self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
            reasoning=self.reasoning_content or self.reasoning,
        )


class FunctionDefinition(WireModel):
    """What a function is called, what it does, and the JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class ChatTool(WireModel):
    """A function that the model may call."""

    type: Literal["function"] = "function"
    function: FunctionDefinition

    _kinds = model_validator(mode="before")(only_functions)

    @property
    def tool(self) -> Tool:
        """As the conversation has it."""
        given = self.function
        return Tool(given.name, given.description, given.parameters or {}, bool(given.strict))


class FunctionName(WireModel):
    """The function that has to be called."""

    name: str


class NamedToolChoice(WireModel):
    """One function, which has to be called."""

    type: Literal["function"] = "function"
    function: FunctionName

    _kinds = model_validator(mode="before")(only_functions)


def _choice_tag(value: object) -> str:
    return f"{UNION_TAG}object" if isinstance(value, dict | NamedToolChoice) else f"{UNION_TAG}word"


ChatToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(f"{UNION_TAG}word")]
    | Annotated[NamedToolChoice, Tag(f"{UNION_TAG}object")],
    Discriminator(_choice_tag),
]


def tool_choice(given: ChatToolChoice | None) -> ToolChoice:
    """As the conversation has it; by default the model decides."""
    if isinstance(given, NamedToolChoice):
        return ToolChoice("named", given.function.name)
    return ToolChoice(given or "auto")
