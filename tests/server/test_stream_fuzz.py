"""Streams of all four endpoints under random requests: a reader of events gets whole JSON, in order, and all the text.

The scripted model writes random bytes, so that broken characters, line breaks and control characters all go through.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.engine.options import EngineOptions
from stand import CHAT, COMPLETIONS, open_stand

RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
Post = Callable[[str, dict[str, object]], httpx.Response]

TEXT = st.text(min_size=1, max_size=12)
SAMPLING = st.fixed_dictionaries({"temperature": st.sampled_from([0, 0.7, 1])}, optional={"top_p": st.floats(0.1, 1)})
SEEDED = st.fixed_dictionaries(
    {"seed": st.integers(0, 99), "max_tokens": st.integers(1, 40), "n": st.integers(1, 3)},
    optional={
        "stop": st.lists(st.text(min_size=1, max_size=2), max_size=3),
        "ignore_eos": st.booleans(),
        "min_tokens": st.just(1),
        "return_token_ids": st.booleans(),
    },
)


@pytest.fixture(scope="module")
def post() -> Iterator[Post]:
    """Posts to one server that stays up for all examples."""
    with asyncio.Runner() as runner:
        exits = AsyncExitStack()
        stand = runner.run(exits.enter_async_context(open_stand("scripted", EngineOptions(max_context=256))))

        def send(path: str, body: dict[str, object]) -> httpx.Response:
            answer = runner.run(stand.client.post(path, json={"model": "scripted", **body}))
            assert answer.status_code == 200, answer.text
            return answer

        yield send
        runner.run(exits.aclose())


def events(content: bytes) -> list[tuple[str, dict[str, object] | None]]:
    """Reads a stream as the HTML standard says: name and data of each event. `None` stands for `[DONE]`."""
    found, name, data = [], "", []
    for line in content.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if data:
                text = "\n".join(data)
                found.append((name, None if text == "[DONE]" else json.loads(text)))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        assert field in ("", "data", "event"), line
        value = value.removeprefix(" ")
        name = value if field == "event" else name
        data += [value] if field == "data" else []
    assert not data, "the last event has no end"
    return found


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@settings(max_examples=40)
@given(prompt=TEXT, sampling=SAMPLING, seeded=SEEDED, include_usage=st.booleans(), logprobs=st.booleans())
def test_chat_and_completions(
    post: Post, path: str, prompt: str, sampling: dict, seeded: dict, include_usage: bool, logprobs: bool
) -> None:
    body = {**sampling, **seeded}
    body |= {"messages": [{"role": "user", "content": prompt}]} if path == CHAT else {"prompt": prompt}
    body |= {"logprobs": True if path == CHAT else 1} if logprobs else {}
    whole = post(path, body).json()
    frames = events(post(path, body | {"stream": True, "stream_options": {"include_usage": include_usage}}).content)
    assert frames.pop() == ("", None)
    if include_usage:
        _, last = frames.pop()
        assert (last["choices"], last["usage"]["completion_tokens"]) == ([], whole["usage"]["completion_tokens"])
    assert len({(frame["id"], frame["created"]) for _, frame in frames}) == 1
    for choice in whole["choices"]:
        parts = [part for _, frame in frames for part in frame["choices"] if part["index"] == choice["index"]]
        said = [part["delta"].get("content") or "" for part in parts] if path == CHAT else [p["text"] for p in parts]
        assert "".join(said) == (choice["message"]["content"] if path == CHAT else choice["text"])
        reasons = [part["finish_reason"] for part in parts if part["finish_reason"]]
        assert reasons == [choice["finish_reason"]] == [parts[-1]["finish_reason"]]
        if path == CHAT:
            assert parts[0]["delta"]["role"] == "assistant"


@settings(max_examples=25)
@given(prompt=TEXT, sampling=SAMPLING, tokens=st.integers(1, 40))
def test_responses(post: Post, prompt: str, sampling: dict, tokens: int) -> None:
    body = {"input": prompt, "max_output_tokens": tokens, **sampling, "stream": True}
    frames = events(post(RESPONSES, body).content)
    assert [frame["sequence_number"] for _, frame in frames] == list(range(len(frames)))
    assert [name for name, _ in frames] == [frame["type"] for _, frame in frames]
    final = frames[-1][1]["response"]
    assert frames[-1][0] == f"response.{final['status']}"
    deltas = "".join(frame["delta"] for name, frame in frames if name == "response.output_text.delta")
    parts = [part["text"] for item in final["output"] if item["type"] == "message" for part in item["content"]]
    assert deltas == "".join(parts)


@settings(max_examples=25)
@given(prompt=TEXT, sampling=SAMPLING, tokens=st.integers(1, 40), stops=st.lists(TEXT, max_size=2))
def test_messages(post: Post, prompt: str, sampling: dict, tokens: int, stops: list[str]) -> None:
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, **sampling}
    body["stop_sequences"] = [stop for stop in stops if stop.strip()]
    frames = events(post(MESSAGES, body | {"stream": True}).content)
    assert [name for name, _ in frames] == [frame["type"] for _, frame in frames]
    names = [name for name, _ in frames if name not in ("ping", "content_block_delta")]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    blocks = names[1:-2]
    assert blocks == ["content_block_start", "content_block_stop"] * (len(blocks) // 2)
