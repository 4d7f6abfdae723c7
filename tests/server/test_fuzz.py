"""Whatever a client sends, the answer is a success or an error of the client's, in the right shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cupola.engine.options import EngineOptions
from stand import CHAT, COMPLETIONS, open_stand

Post = Callable[[str, bytes], httpx.Response]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
# Values that are right; each field is also given values that are not.
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "model": st.sampled_from(["scripted", "alias"]),
    "messages": st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
                "content": st.text(max_size=3)
                | st.lists(st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=2)), max_size=2),
            }
        ),
        min_size=1,
        max_size=2,
    ),
    "prompt": st.text(min_size=1, max_size=5)
    | st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3)
    | st.lists(st.integers(0, 258), min_size=1, max_size=9),
    "max_tokens": st.integers(1, 20),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(-1, 300),
    "min_p": st.floats(0, 1),
    "min_tokens": st.just(1),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "n": st.integers(1, 4),
    "stop": st.text(min_size=1, max_size=3) | st.lists(st.text(min_size=1, max_size=3), max_size=4),
    "stop_token_ids": st.lists(st.integers(0, 258), max_size=3),
    "ignore_eos": st.booleans(),
    "priority": st.integers(-9, 9),
    "stream": st.booleans(),
    "user": JSON,
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "repetition_penalty": st.floats(0.1, 10),
    "logit_bias": st.dictionaries(st.integers(0, 258).map(str), st.floats(-100, 100), max_size=3),
    "allowed_token_ids": st.just(list(range(97, 123))),
    "bad_words": st.lists(st.text(min_size=1, max_size=3), max_size=2),
    "return_token_ids": st.booleans(),
    "cache_salt": st.text(min_size=1, max_size=3),
    "pin_prefix": st.booleans(),
}
OWN_FIELDS: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "messages": {"logprobs": st.booleans()},
    "prompt": {"logprobs": st.integers(0, 20), "echo": st.booleans()},
}
WRONG = st.fixed_dictionaries({}, optional=dict.fromkeys([*FIELDS, "stream_options", "tools", "strange"], JSON))


def bodies(content: str) -> st.SearchStrategy[object]:
    """Bodies for an endpoint that needs the field `content`: right ones, ones with a fault or two, and anything."""
    needed = ("model", content)
    optional = {name: value for name, value in FIELDS.items() if name not in ("model", "messages", "prompt")}
    right = st.fixed_dictionaries({name: FIELDS[name] for name in needed}, optional=optional | OWN_FIELDS[content])
    return right | st.builds(lambda one, other: one | other, right, WRONG) | JSON


@pytest.fixture(scope="module")
def post() -> Iterator[Post]:
    """Posts a body to one server that stays up for all examples."""
    with asyncio.Runner() as runner:
        exits = AsyncExitStack()
        stand = runner.run(exits.enter_async_context(open_stand("scripted", EngineOptions(max_context=128))))

        def send(path: str, content: bytes) -> httpx.Response:
            headers = {"content-type": "application/json"}
            return runner.run(stand.client.post(path, content=content, headers=headers))

        yield send
        runner.run(exits.aclose())


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_json(post: Post, path: str, data: st.DataObject) -> None:
    body = data.draw(bodies("messages" if path == CHAT else "prompt"))
    check(post(path, json.dumps(body).encode()))


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=st.binary(max_size=64) | st.text(alphabet='{}[]",:\\u0d8ntrue1.e-', max_size=40).map(str.encode))
def test_any_bytes(post: Post, path: str, content: bytes) -> None:
    check(post(path, content))


def check(answer: httpx.Response) -> None:
    event(f"status {answer.status_code}")
    if answer.status_code == 200:
        if answer.headers["content-type"].startswith("text/event-stream"):
            assert answer.text.endswith("data: [DONE]\n\n")
            assert '"error"' not in answer.text
        else:
            assert answer.json()["choices"]
        return
    assert answer.status_code in (400, 404), answer.text
    (error,) = answer.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["code"]
