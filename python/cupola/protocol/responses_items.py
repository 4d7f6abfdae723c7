"""The items of `/v1/responses`: what a client sends, what the model answers, and what is stored, in one set of shapes.

An item may come without `id` and `status`; `with_id` gives it both, as responses and lists of items show it.
Items of hosted tools (web search, shell, ...) are refused by their type's name. Knows no conversation and no store.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, model_validator

from cupola.protocol.base import UNION_TAG, WireModel
from cupola.protocol.generation import not_given
from cupola.protocol.logprobs import ContentLogprob
from cupola.protocol.unions import only_kinds, tag_by, type_of

ItemStatus = Literal["in_progress", "completed", "incomplete"]
Id = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


# --- content --------------------------------------------------------------------------------------------------------


class InputText(WireModel):
    """Text that a client wrote."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"prompt_cache_breakpoint"})

    type: Literal["input_text"] = "input_text"
    text: str


class InputImage(WireModel):
    """An image, as a URL that may hold the data; files of a file store are not taken."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"prompt_cache_breakpoint"})
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"file_id": ()}

    type: Literal["input_image"] = "input_image"
    image_url: str
    detail: Literal["auto", "low", "high"] = "auto"


class OutputText(WireModel):
    """Text that a model wrote. Annotations come from other services' models; here there are none."""

    type: Literal["output_text"] = "output_text"
    annotations: tuple[JsonValue, ...] = ()
    logprobs: tuple[ContentLogprob, ...] = ()
    text: str


class Refusal(WireModel):
    """What another service's model said instead of an answer; part of the text here."""

    type: Literal["refusal"] = "refusal"
    refusal: str


class SummaryText(WireModel):
    """A part of a reasoning item's summary."""

    type: Literal["summary_text"] = "summary_text"
    text: str


class ReasoningText(WireModel):
    """A part of what the model thought."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


ContentPart = Annotated[
    Annotated[InputText, Tag(f"{UNION_TAG}input_text")]
    | Annotated[InputImage, Tag(f"{UNION_TAG}input_image")]
    | Annotated[OutputText, Tag(f"{UNION_TAG}output_text")]
    | Annotated[Refusal, Tag(f"{UNION_TAG}refusal")],
    tag_by(type_of),
    only_kinds("a content part", ("input_text", "input_image", "output_text", "refusal"), type_of),
]
ToolOutputPart = Annotated[
    Annotated[InputText, Tag(f"{UNION_TAG}input_text")] | Annotated[InputImage, Tag(f"{UNION_TAG}input_image")],
    tag_by(type_of),
    only_kinds("a tool's output", ("input_text", "input_image"), type_of),
]

ToolOutput = Annotated[
    Annotated[str, Tag(f"{UNION_TAG}text")] | Annotated[tuple[ToolOutputPart, ...], Tag(f"{UNION_TAG}parts")],
    Discriminator(lambda value: UNION_TAG + ("text" if isinstance(value, str) else "parts")),
]


# --- items ----------------------------------------------------------------------------------------------------------


class MessageItem(WireModel):
    """One message; the model's own have the role `assistant`."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"phase"})

    id: Id | None = None
    type: Literal["message"] = "message"
    status: ItemStatus | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: tuple[ContentPart, ...]

    @model_validator(mode="before")
    @classmethod
    def _content_parts(cls, data: object) -> object:
        """A string is one part: of output where the assistant says it, else of input."""
        if not isinstance(data, dict) or not isinstance(data.get("content"), str):
            return data
        kind = "output_text" if data.get("role") == "assistant" else "input_text"
        return data | {"content": [{"type": kind, "text": data["content"]}]}


class FunctionCallItem(WireModel):
    """The model's wish to have a function called. `arguments` is JSON text, as the model wrote it."""

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "async": (False,),
        "caller": ({"type": "direct"},),
        "created_by": (),
        "namespace": (),
    }

    id: Id | None = None
    type: Literal["function_call"] = "function_call"
    status: ItemStatus | None = None
    call_id: Id
    name: Name
    arguments: str


class FunctionCallOutputItem(WireModel):
    """What the function returned."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"name"})
    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "caller": ({"type": "direct"},),
        "created_by": (),
        "namespace": (),
    }

    id: Id | None = None
    type: Literal["function_call_output"] = "function_call_output"
    status: ItemStatus | None = None
    call_id: Id
    output: ToolOutput


class ReasoningItem(WireModel):
    """What the model thought before it answered: in full as `content`, or as `summary`, whichever was asked for."""

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"encrypted_content": ("",)}

    id: Id | None = None
    type: Literal["reasoning"] = "reasoning"
    status: ItemStatus | None = None
    summary: tuple[SummaryText, ...] = ()
    content: tuple[ReasoningText, ...] | None = Field(default=None, exclude_if=not_given)

    @property
    def text(self) -> str:
        """The thoughts, from wherever they are."""
        parts: tuple[SummaryText | ReasoningText, ...] = self.content or self.summary
        return "".join(part.text for part in parts)


class ItemReference(WireModel):
    """Stands for an item that the server has stored."""

    id: Id
    type: Literal["item_reference"] = "item_reference"


Item = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem
"""What can be stored and answered."""

OutputItem = MessageItem | FunctionCallItem | ReasoningItem
"""What the model can write."""

_KINDS = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def _item_kind(value: Mapping[str, object]) -> str:
    """`type` may be left out: what has a role is a message then, and what has only an id a reference."""
    if value.get("type") is not None:
        return type_of(value)
    return "item_reference" if "role" not in value and "id" in value else "message"


def _without_null_type(value: object) -> object:
    """`type: null` is as good as none."""
    if isinstance(value, dict) and "type" in value and value["type"] is None:
        return {name: inner for name, inner in value.items() if name != "type"}
    return value


InputItem = Annotated[
    Annotated[MessageItem, Tag(f"{UNION_TAG}message")]
    | Annotated[FunctionCallItem, Tag(f"{UNION_TAG}function_call")]
    | Annotated[FunctionCallOutputItem, Tag(f"{UNION_TAG}function_call_output")]
    | Annotated[ReasoningItem, Tag(f"{UNION_TAG}reasoning")]
    | Annotated[ItemReference, Tag(f"{UNION_TAG}item_reference")],
    tag_by(_item_kind),
    only_kinds("an item", _KINDS, _item_kind),
    BeforeValidator(_without_null_type),
]


def new_id(prefix: str) -> str:
    """A fresh identifier: `prefix_` and 32 hexadecimal digits."""
    return f"{prefix}_{uuid.uuid4().hex}"


AnyItem = TypeVar("AnyItem", MessageItem, FunctionCallItem, FunctionCallOutputItem, ReasoningItem, Item)


def with_id(item: AnyItem) -> AnyItem:
    """The item as it is shown: with an id and a status, its own where it has them."""
    missing: dict[str, str] = {}
    if item.id is None:
        missing["id"] = new_id(_PREFIXES[item.type])
    if item.status is None:
        missing["status"] = "completed"
    return item.model_copy(update=missing) if missing else item
