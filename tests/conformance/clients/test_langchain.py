"""LangChain (`langchain-openai`), unchanged: prompts, streams, structured output, tools, a conversation."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict, Field


class Person(BaseModel):
    """Somebody."""

    model_config = ConfigDict(extra="forbid")  # a small model goes on inventing fields where it may

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=130)


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@pytest.fixture
def model(base_url: str) -> ChatOpenAI:
    """The chat model as LangChain's documentation makes it."""
    return ChatOpenAI(model="model", base_url=base_url, api_key="none", temperature=0, max_tokens=80, max_retries=0)


def test_a_chain_of_prompt_model_and_parser(model: ChatOpenAI) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Answer in one sentence."), ("human", "What is {thing}?")])
    chain = prompt | model | StrOutputParser()
    whole = chain.invoke({"thing": "rain"})
    assert whole
    assert "".join(chain.stream({"thing": "rain"})) == whole
    assert chain.batch([{"thing": "rain"}, {"thing": "rain"}]) == [whole, whole]
    assert asyncio.run(chain.ainvoke({"thing": "rain"})) == whole


def test_usage_and_finish_reason(model: ChatOpenAI) -> None:
    answer = model.invoke("Count to a hundred.")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == (
        answer.usage_metadata["input_tokens"] + answer.usage_metadata["output_tokens"]
    )
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    chunks = list(model.stream("Count to a hundred.", stream_usage=True))
    assert sum((chunk.usage_metadata or {"output_tokens": 0})["output_tokens"] for chunk in chunks) > 0


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(model: ChatOpenAI, method: str) -> None:
    extractor = model.with_structured_output(Person, method=method, strict=True)
    person = extractor.invoke("Anna is 27 years old.")
    assert isinstance(person, Person)


def test_a_tool_is_called_and_answered(model: ChatOpenAI) -> None:
    with_tools = model.bind_tools([add], tool_choice="add", strict=True, parallel_tool_calls=False)
    question = HumanMessage("What is 2 + 3?")
    call = with_tools.invoke([question])
    assert isinstance(call, AIMessage)
    [wanted] = call.tool_calls
    assert wanted["name"] == "add"
    result = add.invoke(wanted)
    assert isinstance(result, ToolMessage)
    assert model.invoke([question, call, result]).content


def test_a_tool_call_streams(model: ChatOpenAI) -> None:
    with_tools = model.bind_tools([add], tool_choice="required", strict=True, parallel_tool_calls=False)
    whole = None
    for chunk in with_tools.stream("What is 2 + 3?"):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    [wanted] = whole.tool_calls
    assert wanted["name"] == "add"
    assert set(wanted["args"]) == {"a", "b"}


def test_the_responses_api(base_url: str) -> None:
    options = {"temperature": 0, "max_tokens": 40, "max_retries": 0, "use_responses_api": True}
    model = ChatOpenAI(model="model", base_url=base_url, api_key="none", **options)
    whole = model.invoke("Hello").text
    assert whole
    assert "".join(chunk.text for chunk in model.stream("Hello")) == whole
