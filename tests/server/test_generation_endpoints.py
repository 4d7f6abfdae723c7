"""`/v1/chat/completions` and `/v1/completions` against the engine itself, which knows nothing of HTTP."""

from __future__ import annotations

import json

import httpx
import pytest

from cupola.engine.options import EngineOptions
from cupola.engine.request import FinishReason, SamplingParams
from stand import CHAT, COMPLETIONS, Stand, open_stand, until

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


def events(response: httpx.Response) -> list[dict[str, object]]:
    """The JSON events of a stream that has to end with [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    *frames, end = response.text.split("\n\n")
    assert end == ""
    assert frames.pop() == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, object]:
    """The usage of a response."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def chat_usage(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> dict[str, object]:
    """The usage of a chat's response."""
    return usage(prompt, completion, cached) | {"completion_tokens_details": {"reasoning_tokens": reasoning}}


async def test_chat_answers_as_the_engine_does(stand: Stand) -> None:
    expected = await stand.engine.chat(MESSAGES, SamplingParams(temperature=0, max_tokens=12))
    body = {"model": "scripted", "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
    answer = (await stand.client.post(CHAT, json=body)).json()
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "scripted"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": expected.text, "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    prompt = expected.usage.prompt_tokens
    assert answer["usage"] == chat_usage(prompt, 12, cached=prompt - 1), "the engine has just read that prompt"


async def test_chat_streams_the_same_text(stand: Stand) -> None:
    body = {"model": "scripted", "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
    whole = (await stand.client.post(CHAT, json=body)).json()
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    first, *middle, finish, last = events(await stand.client.post(CHAT, json=body))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (
        "".join(event["choices"][0]["delta"]["content"] for event in middle)
        == (whole["choices"][0]["message"]["content"])
    )
    assert all(event["choices"][0]["finish_reason"] is None for event in [first, *middle])
    assert finish["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]
    assert last["choices"] == []
    prompt = whole["usage"]["prompt_tokens"]
    assert last["usage"] == chat_usage(prompt, 12, cached=prompt - 1)
    assert all(event["usage"] is None for event in [first, *middle, finish])
    assert len({event["id"] for event in [first, *middle, finish, last]}) == 1
    assert {event["object"] for event in [first, *middle, finish, last]} == {"chat.completion.chunk"}


async def test_no_usage_frame_unless_asked_for(stand: Stand) -> None:
    body = {"model": "scripted", "messages": MESSAGES, "max_tokens": 2, "stream": True}
    assert all("usage" not in event and event["choices"] for event in events(await stand.client.post(CHAT, json=body)))


async def test_developer_is_system_for_a_template_that_does_not_know_it(stand: Stand) -> None:
    texts = []
    for role in ("system", "developer"):
        messages = [{"role": role, "content": "Be brief."}, MESSAGES[1]]
        body = {"model": "scripted", "messages": messages, "temperature": 0, "max_tokens": 8}
        texts.append((await stand.client.post(CHAT, json=body)).json()["choices"][0]["message"]["content"])
    assert texts[0] == texts[1]


async def test_completions_take_every_form_of_prompt(stand: Stand) -> None:
    async def texts(prompt: object) -> list[str]:
        body = {"model": "scripted", "prompt": prompt, "temperature": 0, "max_tokens": 6}
        answer = (await stand.client.post(COMPLETIONS, json=body)).json()
        assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
        return [choice["text"] for choice in answer["choices"]]

    one, other = await texts("Hello"), await texts("World")
    assert one != other
    assert await texts(["Hello", "World"]) == one + other
    assert await texts(list(b"Hello")) == one
    assert await texts([list(b"Hello"), list(b"World")]) == one + other


async def test_n_choices_share_the_prompt_and_differ_by_seed(stand: Stand) -> None:
    # At temperature 2 the scripted model is left to chance about once in a hundred tokens.
    body = {"model": "scripted", "prompt": "x", "temperature": 2, "max_tokens": 400, "seed": 5, "n": 3}
    answer = (await stand.client.post(COMPLETIONS, json=body)).json()
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(texts)) == 3
    assert answer["usage"] == usage(1, 1200)
    second = (await stand.client.post(COMPLETIONS, json=body | {"seed": 6, "n": 1})).json()
    assert second["choices"][0]["text"] == texts[1]


async def test_streams_of_several_prompts_and_choices_are_told_apart(stand: Stand) -> None:
    body = {"model": "scripted", "prompt": ["a", "b"], "n": 2, "seed": 1, "temperature": 2, "max_tokens": 200}
    whole = (await stand.client.post(COMPLETIONS, json=body)).json()
    texts, reasons = [""] * 4, [None] * 4
    for event in events(await stand.client.post(COMPLETIONS, json=body | {"stream": True})):
        assert event["object"] == "text_completion"
        choice = event["choices"][0]
        assert reasons[choice["index"]] is None, "a choice goes on after its end"
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert reasons == ["length"] * 4


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_strings_end_the_text_and_are_not_in_it(stand: Stand, stream: bool) -> None:
    body = {"model": "scripted", "prompt": "x", "temperature": 0, "max_tokens": 30}
    text = (await stand.client.post(COMPLETIONS, json=body)).json()["choices"][0]["text"]
    stop = text[10:13]
    response = await stand.client.post(COMPLETIONS, json=body | {"stop": ["###", stop], "stream": stream})
    choices = [event["choices"][0] for event in events(response)] if stream else response.json()["choices"]
    assert "".join(choice["text"] for choice in choices) == text[: text.index(stop)]
    assert choices[-1]["finish_reason"] == "stop"


async def test_a_stop_token_counts_as_generated(stand: Stand) -> None:
    body = {"model": "scripted", "prompt": "x", "temperature": 0, "max_tokens": 30}
    text = (await stand.client.post(COMPLETIONS, json=body)).json()["choices"][0]["text"]
    stop = next(letter for i, letter in enumerate(text) if i >= 3 and letter not in text[:i])
    answer = (await stand.client.post(COMPLETIONS, json=body | {"stop_token_ids": [ord(stop)]})).json()
    assert answer["choices"][0] == {
        "index": 0,
        "text": text[: text.index(stop)],
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert answer["usage"]["completion_tokens"] == text.index(stop) + 1


async def test_the_extensions_reach_the_engine() -> None:
    async with open_stand("scripted:eos_every=7") as stand:
        base = {"model": "scripted", "prompt": "x", "temperature": 0, "max_tokens": 60}

        async def completion(**fields: object) -> dict[str, object]:
            return (await stand.client.post(COMPLETIONS, json=base | fields)).json()["choices"][0]

        plain = await completion()
        assert plain["finish_reason"] == "stop"
        assert (await completion(ignore_eos=True))["finish_reason"] == "length"
        assert len((await completion(min_tokens=50))["text"]) >= 50
        greedy = await completion(ignore_eos=True)
        assert await completion(ignore_eos=True, temperature=2, top_k=1) == greedy
        assert await completion(ignore_eos=True, temperature=2, top_p=0) == greedy
        assert await completion(ignore_eos=True, temperature=2, min_p=1) == greedy


async def test_served_under_every_name_and_under_no_other(stand: Stand) -> None:
    for name in ("scripted", "alias"):
        answer = await stand.client.post(COMPLETIONS, json={"model": name, "prompt": "x", "max_tokens": 1})
        assert answer.json()["model"] == "scripted"
    for path, body in ((COMPLETIONS, {"prompt": "x"}), (CHAT, {"messages": MESSAGES})):
        answer = await stand.client.post(path, json={"model": "other"} | body)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x" * 5000}]}, "messages"),
        (CHAT, {"messages": MESSAGES, "max_completion_tokens": 5000}, "max_completion_tokens"),
        (CHAT, {"messages": MESSAGES, "max_tokens": 5000}, "max_tokens"),
        (COMPLETIONS, {"prompt": "x" * 5000}, "prompt"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 5000}, "max_tokens"),
    ],
)
async def test_what_does_not_fit_is_refused_with_a_status(
    stand: Stand, path: str, body: dict[str, object], param: str, stream: bool
) -> None:
    answer = await stand.client.post(path, json={"model": "scripted", "stream": stream} | body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("prompt", ["", ["x", ""], [300]])
async def test_prompts_that_cannot_be_are_refused(stand: Stand, prompt: object) -> None:
    answer = await stand.client.post(COMPLETIONS, json={"model": "scripted", "prompt": prompt})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"
    await until(lambda: stand.engine.stats().running == 0)


async def test_a_full_queue_is_429() -> None:
    options = EngineOptions(num_pages=512, max_batch=1, max_queue=2)
    async with open_stand("scripted:step_us=2000", options) as stand:
        body = {"model": "scripted", "prompt": ["x"] * 20, "max_tokens": 50}
        answer = await stand.client.post(COMPLETIONS, json=body)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
        await stand.engine.drain(100)  # what was accepted of the refused request was ended
        assert stand.engine.stats().pages_free == 512


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_failure_is_told_as_one(stream: bool) -> None:
    async with open_stand("scripted:fail_at_step=4") as stand:
        body = {"model": "scripted", "prompt": "x", "max_tokens": 50, "stream": stream}
        answer = await stand.client.post(COMPLETIONS, json=body)
        if stream:
            assert answer.status_code == 200
            *_, last = events(answer)
            assert last["error"]["type"] == "server_error"
        else:
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "engine_error"
        assert (await stand.client.get("/health")).status_code == 200
        after = await stand.client.post(COMPLETIONS, json=body | {"stream": False})
        assert after.json()["choices"][0]["finish_reason"] == FinishReason.LENGTH.value
