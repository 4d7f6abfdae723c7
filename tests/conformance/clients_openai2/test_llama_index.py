"""LlamaIndex (`llama-index-llms-openai-like`), unchanged: completion, chat, streams, structured output, a tool."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, ConfigDict, Field


class Book(BaseModel):
    """A book."""

    model_config = ConfigDict(extra="forbid")  # a small model goes on inventing fields where it may

    title: str = Field(max_length=30)
    pages: int = Field(ge=1, le=5000)


@pytest.fixture
def llm(base_url: str) -> OpenAILike:
    """The model as LlamaIndex's documentation makes it for compatible servers."""
    return OpenAILike(
        model="model",
        api_base=base_url,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=8192,
        max_tokens=60,
        max_retries=0,
        temperature=0,
    )


def test_complete_and_stream(llm: OpenAILike) -> None:
    text = llm.complete("The sea is").text
    assert text
    assert "".join(part.delta or "" for part in llm.stream_complete("The sea is")) == text


def test_a_chat_with_memory(llm: OpenAILike) -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000)
    for question in ("My name is Ada.", "What is my name?"):
        memory.put(ChatMessage(role="user", content=question))
        memory.put(llm.chat(memory.get()).message)
    assert [message.role.value for message in memory.get()] == ["user", "assistant", "user", "assistant"]
    assert all(message.content for message in memory.get())


def test_structured_output(llm: OpenAILike) -> None:
    answer = llm.as_structured_llm(Book).complete("Invent a book.")
    assert isinstance(answer.raw, Book)


def test_a_tool(llm: OpenAILike) -> None:
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    tool = FunctionTool.from_defaults(add)
    answer = llm.chat_with_tools([tool], user_msg="What is 2 + 3?", tool_required=True)
    [call, *_] = llm.get_tool_calls_from_response(answer)
    assert call.tool_name == "add"
