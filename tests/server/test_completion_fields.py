"""Fields that only `/v1/completions` has: echo and its log-probabilities, suffix, best_of, the forms of `prompt`."""

from __future__ import annotations

import json

import pytest

from cupola.engine.output import ScoredPosition, ScoredToken
from cupola.server.logprobs import CompletionLogprobsWriter
from cupola.text import infill
from cupola.text.infill import InfillForm
from stand import CHAT, COMPLETIONS, Stand, open_stand

BASE = {"model": "scripted", "temperature": 0, "max_tokens": 4}
TEXT = "naïve 日本 🙂!"


async def choices(stand: Stand, **fields: object) -> list[dict[str, object]]:
    """The choices of an answer, put together from its frames if it is a stream."""
    response = await stand.client.post(COMPLETIONS, json=BASE | fields)
    assert response.status_code == 200, response.text
    if not fields.get("stream"):
        return response.json()["choices"]
    found: dict[int, dict[str, object]] = {}
    for line in response.text.split("\n\n")[:-2]:
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            whole = found.setdefault(choice["index"], {"index": choice["index"], "text": "", "logprobs": None})
            whole["text"] += choice["text"]
            whole["finish_reason"] = choice["finish_reason"]
            if choice["logprobs"] is not None:
                before = whole["logprobs"] or {}
                whole["logprobs"] = {
                    name: value if value is None else before.get(name, []) + value
                    for name, value in choice["logprobs"].items()
                }
    return [found[index] for index in sorted(found)]


async def refusal(stand: Stand, **fields: object) -> tuple[int, str, str]:
    """Status, code and field."""
    answer = await stand.client.post(COMPLETIONS, json=BASE | fields)
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]


@pytest.mark.parametrize("max_tokens", [0, 1, 4])
@pytest.mark.parametrize("logprobs", [0, 1, 20])
async def test_an_echo_tells_where_every_token_stands(stand: Stand, max_tokens: int, logprobs: int) -> None:
    [choice] = await choices(stand, prompt=TEXT, echo=True, logprobs=logprobs, max_tokens=max_tokens)
    text, told = choice["text"], choice["logprobs"]
    length = len(TEXT.encode()) + max_tokens
    assert text.startswith(TEXT)
    assert [len(value) for value in told.values() if value is not None] == [length] * (4 if logprobs else 3)
    assert told["token_logprobs"][0] is None
    assert all(logprob < 0 for logprob in told["token_logprobs"][1:])
    data = b"".join(
        bytes.fromhex(token.removeprefix("bytes:").replace("\\x", "")) if token.startswith("bytes:") else token.encode()
        for token in told["tokens"]
    )
    assert data.decode() == text
    # A token's offset is the character that it begins or goes on with.
    starts = [len(data[:at].decode("utf-8", "ignore")) for at in range(length)]
    assert told["text_offset"] == starts
    if logprobs:
        assert told["top_logprobs"][0] is None
        for token, logprob, top in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True):
            assert top is None or (top[token] == logprob and logprobs <= len(top) <= logprobs + 1)


@pytest.mark.parametrize("logprobs", [None, 0, 2])
@pytest.mark.parametrize("echo", [False, True])
async def test_a_stream_of_every_form_of_prompt_is_the_same(stand: Stand, echo: bool, logprobs: int | None) -> None:
    ids = list(TEXT.encode())
    texts = {"echo": echo, "logprobs": logprobs, "n": 2, "temperature": 1.5, "seed": 3}
    for prompt in (TEXT, [TEXT, "x"], ids, [ids, [120]]):
        whole = await choices(stand, prompt=prompt, **texts)
        assert [choice["index"] for choice in whole] == list(range(len(whole)))
        assert await choices(stand, prompt=prompt, stream=True, **texts) == whole
        assert len(whole) == (4 if prompt in ([TEXT, "x"], [ids, [120]]) else 2)
        assert whole[0]["text"].startswith(TEXT) is echo


def test_of_tokens_that_are_written_alike_the_more_probable_one_is_told(stand: Stand) -> None:
    likely, unlikely = ScoredToken(97, b"a", -0.1, 1), ScoredToken(98, b"a", -3.0, 2)
    writer = CompletionLogprobsWriter(stand.engine.tokenizer, 1)
    told = writer.write([ScoredPosition(unlikely, (likely,))])
    assert told.token_logprobs == (-3.0,)
    assert told.top_logprobs == ({"a": -0.1},), "a client sees that the token was not the most probable one"


async def test_best_of_is_what_n_says_or_refused(stand: Stand) -> None:
    plain = await choices(stand, prompt="x", n=2, seed=1)
    assert await choices(stand, prompt="x", n=2, best_of=2, seed=1) == plain
    assert await choices(stand, prompt="x", best_of=1) == await choices(stand, prompt="x")
    assert await refusal(stand, prompt="x", best_of=3) == (400, "invalid_value", "best_of")
    assert await refusal(stand, prompt="x", n=2, best_of=4) == (400, "invalid_value", "best_of")


async def test_a_suffix_is_refused_by_a_model_that_cannot_use_it(stand: Stand) -> None:
    assert await choices(stand, prompt="x", suffix="") == await choices(stand, prompt="x")
    assert await refusal(stand, prompt="x", suffix="y") == (400, "unsupported_parameter", "suffix")


async def test_a_suffix_stands_behind_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infill, "FORMS", (InfillForm("<|endoftext|>", "<|im_start|>", "<|im_end|>"),))
    async with open_stand() as stand:
        for stream in (False, True):
            filled = await choices(stand, prompt="def f(", suffix="):\n", stream=stream)
            by_hand = await choices(stand, prompt=[256, *b"def f(", 257, *b"):\n", 258], stream=stream)
            assert filled == by_hand
        [one, other] = await choices(stand, prompt=[list(b"def f("), list(b"g(")], suffix="):\n")
        assert (one["text"], one["text"] != other["text"]) == (filled[0]["text"], True)
        assert await refusal(stand, prompt="x", suffix="y", echo=True) == (400, "invalid_value", "echo")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", [False, True])
async def test_a_stop_token_is_the_last_one_told(echo: bool, stream: bool) -> None:
    """Evaluation tools take the last token of an echo with `max_tokens: 1` for the generated one, whatever it is."""
    async with open_stand("scripted:eos_every=1") as stand:
        fields = {"prompt": "ab", "echo": echo, "logprobs": 1, "max_tokens": 1, "stream": stream}
        [choice] = await choices(stand, **fields)
        told = choice["logprobs"]
        assert told["tokens"] == ([*"ab"] if echo else []) + ["<|im_end|>"]
        assert told["text_offset"][-1] == len(choice["text"])
        assert told["top_logprobs"][-1] == {"<|im_end|>": told["token_logprobs"][-1]}
        assert (choice["text"], choice["finish_reason"]) == ("ab" if echo else "", "stop")
        chat = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "logprobs": True}
        answer = (await stand.client.post(CHAT, json=chat)).json()
        assert answer["choices"][0]["logprobs"]["content"] == []
        assert answer["usage"]["completion_tokens"] == 1
