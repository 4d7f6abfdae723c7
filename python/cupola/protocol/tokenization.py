"""`/tokenize`, `/detokenize` and `/tokenizer_info`: vLLM's shapes, which evaluation tools speak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from cupola.protocol.base import WireModel
from cupola.protocol.chat_messages import ChatMessage, ChatTool
from cupola.protocol.conversation import MAX_TOOLS, Conversation
from cupola.protocol.generation import ResponseModel, TokenId


class TokenizeRequest(WireModel):
    """A text, or a conversation as the model's chat template renders it.

    model: may be left out; the first model of the server is meant then. add_special_tokens: what the tokenizer puts
    around a text; a template writes its own. add_generation_prompt: up to where the assistant's message begins.
    """

    NEUTRAL: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "chat_template": (),
        "continue_final_message": (False,),
        "mm_processor_kwargs": ({},),
    }

    model: str | None = Field(None, max_length=1024)
    prompt: str | None = None
    messages: tuple[ChatMessage, ...] | None = Field(None, min_length=1)
    tools: tuple[ChatTool, ...] | None = Field(None, max_length=MAX_TOOLS)
    chat_template_kwargs: dict[str, JsonValue] | None = None
    add_generation_prompt: bool | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _check_together(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_text", "give either `prompt` or `messages`", {"param": "prompt"})
        if self.messages is not None and self.add_special_tokens:
            raise PydanticCustomError(
                "template_writes_them",
                "`add_special_tokens` is only allowed with `prompt`: a chat template writes its own",
                {"param": "add_special_tokens"},
            )
        for name in ("tools", "chat_template_kwargs", "add_generation_prompt"):
            if self.prompt is not None and getattr(self, name) is not None:
                raise PydanticCustomError(
                    "without_messages", "`{name}` is only allowed with `messages`", {"name": name, "param": name}
                )
        return self

    @property
    def conversation(self) -> Conversation:
        """The messages and what else the template gets."""
        return Conversation(
            messages=tuple(message.message for message in self.messages or ()),
            tools=tuple(tool.tool for tool in self.tools or ()),
            template_arguments=self.chat_template_kwargs or {},
        )


class Tokens(ResponseModel):
    """The ids, and how many a request may have; `token_strs` as the vocabulary writes them, for those who asked."""

    count: int
    max_model_len: int
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = None


class DetokenizeRequest(WireModel):
    """Token ids."""

    model: str | None = Field(None, max_length=1024)
    tokens: tuple[TokenId, ...]


class DetokenizedText(ResponseModel):
    """Their text, special tokens as the vocabulary writes them."""

    prompt: str


class TokenizerInfo(ResponseModel):
    """What a client has to know to tokenize and to write prompts by itself."""

    tokenizer_class: Literal["PreTrainedTokenizerFast"] = "PreTrainedTokenizerFast"
    model_max_length: int
    vocab_size: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None
