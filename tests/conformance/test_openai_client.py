"""The official `openai` package as the judge: what it sends is understood, what it gets is what its types say."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": [{"type": "text", "text": "Name three colours."}]},
]


def ask(client: openai.OpenAI, **options: object) -> str:
    """One greedy chat answer as text."""
    options = {"model": "model", "messages": MESSAGES, "max_tokens": 24, "temperature": 0} | options
    answer = client.chat.completions.create(**options)
    assert answer.choices[0].message.content is not None
    return answer.choices[0].message.content


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="model", messages=MESSAGES, max_completion_tokens=16, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.model == "model"
    choice = answer.choices[0]
    assert (choice.index, choice.message.role) == (0, "assistant")
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_stream_is_the_same_answer(client: openai.OpenAI) -> None:
    text, reasons, usages, roles = "", [], [], []
    stream = client.chat.completions.create(
        model="model",
        messages=MESSAGES,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk"
        if chunk.usage is not None:
            assert chunk.choices == []
            usages.append(chunk.usage)
            continue
        (choice,) = chunk.choices
        roles += [choice.delta.role] if choice.delta.role else []
        text += choice.delta.content or ""
        reasons += [choice.finish_reason] if choice.finish_reason else []
    assert text == ask(client)
    assert roles == ["assistant"]
    assert len(reasons) == len(usages) == 1
    whole = client.chat.completions.create(model="model", messages=MESSAGES, max_tokens=24, temperature=0)
    assert whole.usage is not None
    assert (usages[0].prompt_tokens, usages[0].completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    assert whole.usage.prompt_tokens_details is not None
    assert 0 < (whole.usage.prompt_tokens_details.cached_tokens or 0) < whole.usage.prompt_tokens
    assert reasons[0] == whole.choices[0].finish_reason


def test_the_stream_helper_of_the_client_accumulates(client: openai.OpenAI) -> None:
    text = ask(client)
    stop = text[len(text) // 2 :][:3]  # the helper takes an answer of full length for an error
    with client.chat.completions.stream(
        model="model", messages=MESSAGES, max_tokens=24, temperature=0, n=2, stop=stop
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [text[: text.index(stop)]] * 2


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="alias", prompt=["Once upon", "The sky"], max_tokens=8, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1]
    alone = client.completions.create(model="model", prompt="The sky", max_tokens=8, temperature=0)
    assert alone.choices[0].text == answer.choices[1].text
    stream = client.completions.create(model="model", prompt="The sky", max_tokens=8, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == alone.choices[0].text


def test_n_and_seed(client: openai.OpenAI) -> None:
    def texts(seed: int, n: int) -> list[str | None]:
        answer = client.chat.completions.create(
            model="model", messages=MESSAGES, max_tokens=160, temperature=2, seed=seed, n=n
        )
        return [choice.message.content for choice in answer.choices]

    first = texts(11, 3)
    assert len(set(first)) == 3
    assert texts(11, 3) == first
    assert texts(12, 2) == first[1:], "choice i has the seed of the request plus i"


def test_stop(client: openai.OpenAI) -> None:
    text = ask(client)
    stop = text[len(text) // 2 :][:3]
    assert ask(client, stop=stop) == text[: text.index(stop)]
    assert ask(client, stop=["never in there", stop]) == text[: text.index(stop)]
    answer = client.chat.completions.create(model="model", messages=MESSAGES, max_tokens=24, temperature=0, stop=stop)
    assert answer.choices[0].finish_reason == "stop"


def test_logprobs_of_a_chat(client: openai.OpenAI) -> None:
    def entries(**options: object) -> list[tuple[str, float, list[str]]]:
        options = {
            "model": "model",
            "messages": MESSAGES,
            "max_tokens": 12,
            "temperature": 0,
            "logprobs": True,
        } | options
        answer = client.chat.completions.create(**options)
        chunks = list(answer) if options.get("stream") else [answer]
        told = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs is not None]
        content = [entry for logprobs in told for entry in logprobs.content or ()]
        return [(e.token, e.logprob, [top.token for top in e.top_logprobs]) for e in content]

    whole = entries(top_logprobs=3)
    assert len(whole) > 5
    assert "".join(token for token, _, _ in whole) == ask(client, max_tokens=12)
    assert all(logprob <= 0 and len(top) == 3 and top[0] == token for token, logprob, top in whole)
    assert entries(top_logprobs=3, stream=True) == whole
    assert [entry[:2] for entry in entries()] == [entry[:2] for entry in whole]


def test_logprobs_and_echo_of_a_completion(client: openai.OpenAI) -> None:
    options = {"model": "model", "max_tokens": 6, "temperature": 0, "logprobs": 2}
    plain = client.completions.create(prompt="Once upon a time", **options).choices[0]
    echoed = client.completions.create(prompt="Once upon a time", echo=True, **options).choices[0]
    assert echoed.text == "Once upon a time" + plain.text
    assert plain.logprobs is not None
    assert echoed.logprobs is not None
    assert echoed.logprobs.token_logprobs is not None
    assert echoed.logprobs.token_logprobs[0] is None
    assert echoed.logprobs.token_logprobs[-6:] == plain.logprobs.token_logprobs
    assert "".join(echoed.logprobs.tokens or []) == echoed.text
    for token, offset in zip(echoed.logprobs.tokens or [], echoed.logprobs.text_offset or [], strict=True):
        assert echoed.text[offset:].startswith(token)
    stream = client.completions.create(prompt="Once upon a time", echo=True, stream=True, **options)
    chunks = [chunk.choices[0] for chunk in stream if chunk.choices]
    assert "".join(chunk.text for chunk in chunks) == echoed.text
    told = [chunk.logprobs for chunk in chunks if chunk.logprobs is not None]
    assert [logprob for one in told for logprob in one.token_logprobs or []] == echoed.logprobs.token_logprobs
    assert [offset for one in told for offset in one.text_offset or []] == echoed.logprobs.text_offset
    reading = client.completions.create(prompt="Once upon a time", echo=True, **options | {"max_tokens": 0}).choices[0]
    assert reading.logprobs is not None
    assert reading.logprobs.token_logprobs == echoed.logprobs.token_logprobs[:-6]


def test_penalties_and_bias_change_the_answer(client: openai.OpenAI) -> None:
    plain = ask(client, max_tokens=40, extra_body={"ignore_eos": True})
    first = client.chat.completions.create(
        model="model", messages=MESSAGES, max_tokens=1, temperature=0, extra_body={"return_token_ids": True}
    )
    [token] = first.choices[0].model_extra["token_ids"]
    assert not ask(client, logit_bias={str(token): -100}).startswith(first.choices[0].message.content or "-")
    strict = {"ignore_eos": True, "repetition_penalty": 10.0}
    assert ask(client, max_tokens=40, frequency_penalty=2, presence_penalty=2, extra_body=strict) != plain
    assert ask(client, max_tokens=40, extra_body={"ignore_eos": True, "repetition_penalty": 1.0}) == plain
    only = {"allowed_token_ids": [token], "ignore_eos": True}
    assert ask(client, max_tokens=3, extra_body=only) == (first.choices[0].message.content or "") * 3


def test_extensions_through_extra_body(client: openai.OpenAI) -> None:
    extra = {"top_k": 1, "min_p": 0.0, "min_tokens": 4, "ignore_eos": True, "priority": 2}
    extra |= {"timeout": 60, "cache_salt": "mine", "pin_prefix": False}
    answer = client.chat.completions.create(
        model="model", messages=MESSAGES, max_tokens=24, temperature=1.5, extra_body=extra
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert answer.choices[0].message.content == ask(client, extra_body={"ignore_eos": True})


def test_harmless_parameters_are_taken(client: openai.OpenAI) -> None:
    text = ask(
        client,
        user="me",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        logprobs=False,
        presence_penalty=0,
        frequency_penalty=0,
        response_format={"type": "text"},
        prompt_cache_key="k",
        safety_identifier="s",
    )
    assert text == ask(client)


def test_a_conversation_goes_on_with_the_messages_received(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="model", messages=MESSAGES, max_tokens=8, temperature=0)
    messages = [*MESSAGES, answer.choices[0].message.to_dict(), {"role": "user", "content": "And three animals."}]
    assert ask(client, messages=messages)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["model", "alias"]
    assert client.models.retrieve("alias").id == "alias"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


@pytest.mark.parametrize(
    ("options", "error", "code", "param"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model_not_found", "model"),
        ({"temperature": 3}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"max_tokens": 10**6}, openai.BadRequestError, "context_length_exceeded", "max_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, openai.BadRequestError, "invalid_value", "top_logprobs"),
        ({"presence_penalty": -3}, openai.BadRequestError, "invalid_value", "presence_penalty"),
        ({"logit_bias": {"10000000": 1}}, openai.BadRequestError, "invalid_value", "logit_bias"),
        ({"tools": [{"type": "custom"}]}, openai.BadRequestError, "unsupported_parameter", "tools.0"),
        ({"messages": []}, openai.BadRequestError, "invalid_value", "messages"),
        ({"stop": ["a"] * 33}, openai.BadRequestError, "invalid_value", "stop"),
        ({"extra_body": {"top_q": 1}}, openai.BadRequestError, "unsupported_parameter", "top_q"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_their_class(
    client: openai.OpenAI,
    options: dict[str, object],
    error: type[openai.APIStatusError],
    code: str,
    param: str,
    stream: bool,
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "model", "messages": MESSAGES, "stream": stream} | options)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id is not None


async def test_64_concurrent_streams_answer_as_one_alone_does(async_client: openai.AsyncOpenAI) -> None:
    async def stream(number: int) -> str:
        text = ""
        chunks = await async_client.chat.completions.create(
            model="model",
            messages=[{"role": "user", "content": f"Count from {number}."}],
            max_tokens=16,
            temperature=0,
            stream=True,
        )
        async for chunk in chunks:
            text += chunk.choices[0].delta.content or ""
        return text

    together = await asyncio.gather(*(stream(number % 8) for number in range(64)))
    alone = [await stream(number) for number in range(8)]
    assert together == alone * 8
