"""Whatever a client sends to `/v1/responses`, it gets a response or an error of the client's, in the right shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from openai.types.responses import Response as SdkResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from cupola.engine.options import EngineOptions
from stand import open_stand

Post = Callable[[bytes], httpx.Response]
EVENT = TypeAdapter(ResponseStreamEvent)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TEXT = st.text(max_size=4)
CALL_ID = st.sampled_from(["c1", "c2"])
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("input_text"), "text": TEXT}), min_size=1, max_size=2)
SPOKEN = st.lists(st.fixed_dictionaries({"type": st.just("output_text"), "text": TEXT}), max_size=2)
ITEMS = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "developer"]), "content": TEXT | PARTS}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT | SPOKEN}),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": CALL_ID, "name": st.just("f"), "arguments": st.just("{}")}
    ),
    st.fixed_dictionaries({"type": st.just("function_call_output"), "call_id": CALL_ID, "output": TEXT | PARTS}),
    st.fixed_dictionaries(
        {"type": st.just("reasoning"), "summary": st.just([])},
        optional={"content": st.just([{"type": "reasoning_text", "text": "hm"}])},
    ),
    st.fixed_dictionaries({"id": TEXT}),
    st.dictionaries(st.sampled_from(["type", "role", "content", "id", "call_id"]), JSON),
)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "instructions": TEXT,
    "stream": st.booleans(),
    "store": st.booleans(),
    "temperature": st.floats(0, 2),
    "tools": st.just([TOOL]),
    "tool_choice": st.sampled_from(["auto", "none"]),
    "text": st.sampled_from([{}, {"format": {"type": "text"}}, {"format": {"type": "json_object"}}]),
    "reasoning": st.sampled_from([{}, {"effort": "low"}, {"summary": "auto"}]),
    "include": st.just(["message.output_text.logprobs"]),
    "truncation": st.sampled_from(["auto", "disabled"]),
    "metadata": st.dictionaries(TEXT, TEXT, max_size=2),
}
RIGHT = st.fixed_dictionaries(
    {
        "model": st.just("scripted"),
        "max_output_tokens": st.integers(1, 12),
        "input": TEXT | st.lists(ITEMS, max_size=4),
    },
    optional=FIELDS,
)
WRONG = st.fixed_dictionaries(
    {}, optional=dict.fromkeys([*FIELDS, "input", "previous_response_id", "stream_options", "strange"], JSON)
)
BODIES = RIGHT | st.builds(lambda one, other: one | other, RIGHT, WRONG) | JSON


@pytest.fixture(scope="module")
def post() -> Iterator[Post]:
    """Posts a body to one server that stays up for all examples."""
    with asyncio.Runner() as runner:
        exits = AsyncExitStack()
        stand = runner.run(exits.enter_async_context(open_stand("scripted", EngineOptions(max_context=160))))
        headers = {"content-type": "application/json"}
        yield lambda content: runner.run(stand.client.post("/v1/responses", content=content, headers=headers))
        runner.run(exits.aclose())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=BODIES)
def test_any_json(post: Post, body: object) -> None:
    answer = post(json.dumps(body).encode())
    event(f"status {answer.status_code}")
    if answer.status_code != 200:
        assert answer.status_code in (400, 404), answer.text
        (error,) = answer.json().values()
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert error["code"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        events = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]
        for number, one in enumerate(events):
            EVENT.validate_python(one)
            assert one["sequence_number"] == number
        assert events[-1]["type"] in ("response.completed", "response.incomplete")
        SdkResponse.model_validate(events[-1]["response"])
    else:
        SdkResponse.model_validate(answer.json())
