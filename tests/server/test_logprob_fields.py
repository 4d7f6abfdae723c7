"""Log-probabilities, token ids and scores over HTTP, against the engine itself."""

from __future__ import annotations

import json
import math

import pytest

from cupola.engine.options import EngineOptions
from cupola.engine.request import SamplingParams
from stand import CHAT, COMPLETIONS, Stand, open_stand

SCORE = "/v1/score"
BASE = {"model": "scripted", "temperature": 0, "max_tokens": 5}
MESSAGES = [{"role": "user", "content": "hi"}]


async def test_bytes_are_exact_where_text_cannot_be() -> None:
    async with open_stand("scripted:first_id=128,num_ids=128") as stand:
        body = BASE | {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2, "max_tokens": 30}
        choice = (await stand.client.post(CHAT, json=body)).json()["choices"][0]
        content = choice["logprobs"]["content"]
        joined = bytes(byte for entry in content for byte in entry["bytes"])
        assert joined.decode("utf-8", "replace") == choice["message"]["content"]
        assert {entry["token"] for entry in content} == {"�"}
        assert all(len(entry["top_logprobs"]) == 2 for entry in content)
        legacy = (await stand.client.post(COMPLETIONS, json=BASE | {"prompt": "x", "logprobs": 1})).json()
        tokens = legacy["choices"][0]["logprobs"]["tokens"]
        assert all(token.startswith("bytes:\\x") for token in tokens)


async def test_prompt_logprobs_name_the_prompts_tokens_first(stand: Stand) -> None:
    expected = await stand.engine.complete("hey", SamplingParams(temperature=0, max_tokens=5, prompt_logprobs=1))
    body = BASE | {"prompt": "hey", "prompt_logprobs": 1}
    choice = (await stand.client.post(COMPLETIONS, json=body)).json()["choices"][0]
    first, *others = choice["prompt_logprobs"]
    assert first is None
    assert [next(iter(entry)) for entry in others] == [str(ord("e")), str(ord("y"))]
    for entry, position in zip(others, expected.prompt_logprobs, strict=True):
        token = entry[str(position.token.token_id)]
        assert token == {
            "logprob": pytest.approx(position.token.logprob),
            "rank": position.token.rank,
            "decoded_token": position.token.text,
        }
    chat = (await stand.client.post(CHAT, json=BASE | {"messages": MESSAGES, "prompt_logprobs": 0})).json()
    assert len(chat["prompt_logprobs"]) == chat["usage"]["prompt_tokens"]


@pytest.mark.parametrize(("path", "content"), [(CHAT, {"messages": MESSAGES}), (COMPLETIONS, {"prompt": "hi"})])
async def test_token_ids_come_back_if_asked_for(stand: Stand, path: str, content: dict[str, object]) -> None:
    body = BASE | content
    plain = (await stand.client.post(path, json=body)).json()
    assert "token_ids" not in json.dumps(plain)
    answer = (await stand.client.post(path, json=body | {"return_token_ids": True})).json()
    choice = answer["choices"][0]
    text = choice["text"] if path == COMPLETIONS else choice["message"]["content"]
    assert bytes(choice["token_ids"]).decode() == text
    holder = choice if path == COMPLETIONS else answer
    assert len(holder["prompt_token_ids"]) == answer["usage"]["prompt_tokens"]
    again = await stand.client.post(COMPLETIONS, json=BASE | {"prompt": holder["prompt_token_ids"]})
    assert again.json()["choices"][0]["text"] == text
    response = await stand.client.post(path, json=body | {"return_token_ids": True, "stream": True})
    frames = [json.loads(line[6:]) for line in response.text.split("\n\n") if line and not line.endswith("[DONE]")]
    streamed = [i for frame in frames for choice in frame["choices"] for i in choice.get("token_ids", [])]
    assert streamed == choice["token_ids"]
    first = frames[0]["choices"][0] if path == COMPLETIONS else frames[0]
    assert first["prompt_token_ids"] == holder["prompt_token_ids"]


async def test_scores_are_the_engines(stand: Stand) -> None:
    expected = await stand.engine.score("some context", ["abc", [100]], top=2)
    body = {"model": "alias", "prompt": "some context", "continuations": ["abc", [100]], "top_logprobs": 2}
    answer = (await stand.client.post(SCORE, json=body)).json()
    assert (answer["object"], answer["model"]) == ("list", "scripted")
    assert [one["token_ids"] for one in answer["data"]] == [[97, 98, 99], [100]]
    for one, score in zip(answer["data"], expected, strict=True):
        assert one["logprobs"] == pytest.approx(list(score.logprobs))
        assert one["sum"] == pytest.approx(math.fsum(one["logprobs"]))
        assert one["is_greedy"] is score.is_greedy
        assert [entry["logprob"] for entry in one["content"]] == one["logprobs"]
        assert all(len(entry["top_logprobs"]) == 2 for entry in one["content"])
    assert answer["usage"]["prompt_tokens"] == 15 + 13
    ids = {"model": "alias", "prompt_token_ids": list(b"some context"), "continuations": [[97, 98, 99], [100]]}
    assert (await stand.client.post(SCORE, json=ids)).json()["data"][0]["logprobs"] == answer["data"][0]["logprobs"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"continuations": []}, 400, "continuations"),
        ({"prompt": None}, 400, "prompt"),
        ({"prompt": "x" * 5000}, 400, "prompt"),
        ({"continuations": [[300]]}, 400, "prompt"),
        ({"top_logprobs": 21}, 400, "top_logprobs"),
        ({"temperature": 1}, 400, "temperature"),
    ],
)
async def test_scores_that_cannot_be(stand: Stand, fields: dict[str, object], status: int, param: str) -> None:
    body = {"model": "scripted", "prompt": "x", "continuations": ["y"]} | fields
    answer = await stand.client.post(SCORE, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_ids_outside_of_the_vocabulary_are_refused_by_their_field(stand: Stand) -> None:
    for field, value in (("allowed_token_ids", [259]), ("logit_bias", {"259": 1}), ("stop_token_ids", [259])):
        answer = await stand.client.post(COMPLETIONS, json=BASE | {"prompt": "x", field: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("stream", [False, True])
async def test_where_nothing_is_allowed_the_client_is_told(stand: Stand, stream: bool) -> None:
    body = BASE | {"prompt": "x", "allowed_token_ids": [97], "bad_words": ["a"], "stream": stream}
    answer = await stand.client.post(COMPLETIONS, json=body)
    error = json.loads(answer.text.split("\n\n")[-3][6:]) if stream else answer.json()
    assert answer.status_code == (200 if stream else 400)
    assert error["error"]["code"] == "invalid_value"
    assert "no token is allowed" in error["error"]["message"].lower()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_not_done_in_time_is_ended(stream: bool) -> None:
    async with open_stand("scripted:step_us=2000") as stand:
        body = {"model": "scripted", "prompt": "x", "max_tokens": 4000, "timeout": 0.05, "stream": stream}
        answer = await stand.client.post(COMPLETIONS, json=body)
        error = json.loads(answer.text.split("\n\n")[-3][6:]) if stream else answer.json()
        assert answer.status_code == (200 if stream else 504)
        assert error["error"]["code"] == "timeout"
        assert stand.engine.stats().running == 0


async def test_a_score_that_is_not_done_in_time_is_ended() -> None:
    async with open_stand("scripted:step_us=20000", EngineOptions(max_step_tokens=20)) as stand:
        body = {"model": "scripted", "prompt": "x" * 500, "continuations": ["y"], "timeout": 0.05}
        answer = await stand.client.post(SCORE, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")


async def test_cached_tokens_of_the_prompt_are_counted(stand: Stand) -> None:
    body = BASE | {"prompt": "p" * 100}
    cold = (await stand.client.post(COMPLETIONS, json=body)).json()["usage"]
    warm = (await stand.client.post(COMPLETIONS, json=body)).json()["usage"]
    other = (await stand.client.post(COMPLETIONS, json=body | {"cache_salt": "mine"})).json()["usage"]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in (cold, warm, other)]
    assert cached[0] == cached[2] == 0
    assert 80 <= cached[1] < 100
    score = {"model": "scripted", "prompt": "p" * 100, "continuations": ["a", "b", "c"]}
    usage = (await stand.client.post(SCORE, json=score)).json()["usage"]
    assert usage["prompt_tokens"] == 303
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 3 * 80


async def test_a_prompt_can_be_pinned(stand: Stand) -> None:
    body = BASE | {"prompt": "q" * 100, "pin_prefix": True}
    assert (await stand.client.post(COMPLETIONS, json=body)).status_code == 200
    assert stand.engine.stats().pages_pinned >= 6
    for kept in ({"pin_prefix": None}, {"prompt": "r" * 100, "pin_prefix": False}, {"cache_salt": "other"}):
        await stand.client.post(COMPLETIONS, json=body | {"pin_prefix": False} | kept)
    assert stand.engine.stats().pages_pinned >= 6, "only the same prompt and salt lift a pin"
    await stand.client.post(COMPLETIONS, json=body | {"pin_prefix": False})
    assert stand.engine.stats().pages_pinned == 0
    await stand.client.post(COMPLETIONS, json=body)
    assert stand.engine.stats().pages_pinned >= 6
    stand.engine.unpin("q" * 100)
    await stand.client.post(COMPLETIONS, json=body | {"pin_prefix": None})
    assert stand.engine.stats().pages_pinned == 0


async def test_a_full_queue_refuses_before_it_tokenizes(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tokenized(*_: object, **__: object) -> list[int]:
        raise AssertionError("what is refused in any case need not be tokenized")

    config = stand.engine.config
    monkeypatch.setattr(stand.engine._mailroom, "_mailboxes", dict.fromkeys(range(config.max_queue + config.max_batch)))
    monkeypatch.setattr(stand.engine, "tokenize", tokenized)
    for path, extra in (
        (COMPLETIONS, {"prompt": "a"}),
        (CHAT, {"messages": [{"role": "user", "content": "a"}]}),
        (SCORE, {"prompt": "a", "continuations": ["b"]}),
    ):
        answer = await stand.client.post(path, json={"model": "scripted"} | extra)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
    monkeypatch.undo()
