"""pydantic-ai, unchanged: an agent with native and tool output, a tool that it calls, a stream."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings


class City(BaseModel):
    """A city."""

    model_config = ConfigDict(extra="forbid")  # a small model goes on inventing fields where it may

    name: str = Field(max_length=20)
    inhabitants: int = Field(ge=0, le=50_000_000)


@pytest.fixture
def model(base_url: str) -> OpenAIChatModel:
    """The model as pydantic-ai's documentation makes it for compatible servers."""
    return OpenAIChatModel("model", provider=OpenAIProvider(base_url=base_url, api_key="none"))


SETTINGS = ModelSettings(temperature=0, max_tokens=80)


def test_text(model: OpenAIChatModel) -> None:
    result = Agent(model, system_prompt="Be brief.").run_sync("Name a colour.", model_settings=SETTINGS)
    assert result.output
    assert result.usage.output_tokens > 0


def test_native_structured_output(model: OpenAIChatModel) -> None:
    agent = Agent(model, output_type=NativeOutput(City, strict=True))
    assert isinstance(agent.run_sync("Tell me about Paris.", model_settings=SETTINGS).output, City)


def test_output_by_a_tool(model: OpenAIChatModel) -> None:
    agent = Agent(model, output_type=City, retries=0)
    assert isinstance(agent.run_sync("Tell me about Paris.", model_settings=SETTINGS).output, City)


async def test_a_stream(model: OpenAIChatModel) -> None:
    # An answer of seconds, because a server gives a reader that is late all that piled up as one part; and without
    # the client's debouncing, which makes one part of all that comes within a tenth of a second.
    settings = ModelSettings(temperature=0, max_tokens=400, extra_body={"ignore_eos": True})
    async with Agent(model).run_stream("Say hello.", model_settings=settings) as result:
        parts = [part async for part in result.stream_text(delta=True, debounce_by=None)]
    assert len(parts) > 1
    assert "".join(parts)


def test_a_conversation(model: OpenAIChatModel) -> None:
    agent = Agent(model)
    first = agent.run_sync("My name is Ada.", model_settings=SETTINGS)
    second = agent.run_sync("What is my name?", message_history=first.all_messages(), model_settings=SETTINGS)
    assert len(second.all_messages()) == 4
