"""The endpoints as plain functions, as `cupola batch` calls them."""

from __future__ import annotations

import asyncio

import pytest

from cupola.errors import ContextLengthError, RequestError
from cupola.protocol.chat import ChatCompletionRequest
from cupola.protocol.completions import CompletionRequest
from cupola.protocol.errors import ApiError
from cupola.server.chat import create_chat_completion
from cupola.server.completions import create_completion
from stand import Stand, open_stand, until

CHAT = {"model": "alias", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


async def test_chat(stand: Stand) -> None:
    answer = await create_chat_completion(stand.model, ChatCompletionRequest.model_validate(CHAT))
    assert len(answer.choices[0].message.content) == answer.usage.completion_tokens == 5
    assert answer.model == "scripted"


async def test_completion(stand: Stand) -> None:
    request = CompletionRequest.model_validate({"model": "alias", "prompt": ["a", [98]], "max_tokens": 3, "n": 2})
    answer = await create_completion(stand.model, request)
    assert [len(choice.text) for choice in answer.choices] == [3, 3, 3, 3]
    assert answer.usage.prompt_tokens == 2


async def test_refusals_are_exceptions(stand: Stand) -> None:
    with pytest.raises(ApiError, match="does not exist"):
        await create_chat_completion(stand.model, ChatCompletionRequest.model_validate(CHAT | {"model": "other"}))
    with pytest.raises(ContextLengthError):
        await create_chat_completion(stand.model, ChatCompletionRequest.model_validate(CHAT | {"max_tokens": 9999}))
    with pytest.raises(RequestError, match="Unknown role"):
        async with open_stand() as other:
            other.engine.render_chat([{"role": "robot", "content": "x"}])


async def test_cancelling_the_call_ends_the_generation() -> None:
    async with open_stand("scripted:step_us=1000") as stand:
        request = ChatCompletionRequest.model_validate(CHAT | {"max_tokens": 4000, "n": 3})
        call = asyncio.create_task(create_chat_completion(stand.model, request))
        await until(lambda: stand.engine.stats().running == 3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: stand.engine.stats().running == 0)
        assert stand.engine.stats().pages_free == 512
