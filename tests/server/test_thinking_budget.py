"""A budget of reasoning, through all endpoints that converse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from cupola.server.chat_style import ChatStyle
from cupola.text.reply_format import Reasoning, ReplyFormat
from stand import CHAT, Stand, open_stand

# The scripted model writes the letters, `{` and `|`: what stands between these two counts as reasoning.
SCRIPT = "scripted:num_ids=28"
MESSAGES = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
BUDGET = 5


def thinking(style: ChatStyle) -> ChatStyle:
    found = ReplyFormat(Reasoning("braces", start="{", end="|"))
    return replace(style, format=found, marks=(tuple(b"{"), tuple(b"|")))


@pytest.fixture
async def thinker() -> AsyncIterator[Stand]:
    async with open_stand(SCRIPT, restyle=thinking) as opened:
        yield opened


async def chat(stand: Stand, **fields: object) -> tuple[str, str, int]:
    """Reasoning, content, and how many tokens of reasoning were counted."""
    answer = (await stand.client.post(CHAT, json=MESSAGES | {"max_tokens": 400} | fields)).json()
    message, usage = answer["choices"][0]["message"], answer["usage"]
    counted = usage["completion_tokens_details"]["reasoning_tokens"]
    return message.get("reasoning_content") or "", message["content"], counted


async def test_chat(thinker: Stand) -> None:
    free, _, _ = await chat(thinker)
    assert len(free) > BUDGET
    kept, content, counted = await chat(thinker, thinking_token_budget=BUDGET)
    assert kept == free[:BUDGET]
    assert content
    assert counted > BUDGET, "with its delimiters"
    none, _, _ = await chat(thinker, thinking_token_budget=0)
    assert none == ""
    ample, _, _ = await chat(thinker, thinking_token_budget=400)
    assert ample == free


async def test_messages(thinker: Stand) -> None:
    body = MESSAGES | {"max_tokens": 400, "thinking": {"type": "enabled", "budget_tokens": BUDGET}}
    answer = (await thinker.client.post("/v1/messages", json=body)).json()
    thoughts = "".join(block["thinking"] for block in answer["content"] if block["type"] == "thinking")
    assert len(thoughts) == BUDGET


async def test_responses(thinker: Stand) -> None:
    body = {"model": "scripted", "input": "hi", "temperature": 0, "max_output_tokens": 400}
    answer = (await thinker.client.post("/v1/responses", json=body | {"thinking_token_budget": BUDGET})).json()
    thoughts = [part["text"] for item in answer["output"] if item["type"] == "reasoning" for part in item["content"]]
    assert len("".join(thoughts)) == BUDGET


@pytest.mark.parametrize("value", [-1, "many", 2**31])
async def test_what_is_no_budget_is_refused(thinker: Stand, value: object) -> None:
    response = await thinker.client.post(CHAT, json=MESSAGES | {"thinking_token_budget": value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "thinking_token_budget"


async def test_reasoning_that_ends_with_words_cannot_be_limited() -> None:
    async with open_stand(reply_format="hermes+think") as stand:
        response = await stand.client.post(CHAT, json=MESSAGES | {"thinking_token_budget": 9})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "thinking_token_budget")
        body = MESSAGES | {"max_tokens": 20, "thinking": {"type": "enabled", "budget_tokens": 9}}
        refused = await stand.client.post("/v1/messages", json=body)
        assert refused.status_code == 400
        assert "budget of 9 tokens" in refused.json()["error"]["message"]


async def test_a_model_that_does_not_reason_is_within_every_budget(stand: Stand) -> None:
    assert await chat_text(stand) == await chat_text(stand, thinking_token_budget=0)


async def chat_text(stand: Stand, **fields: object) -> str:
    answer = (await stand.client.post(CHAT, json=MESSAGES | {"max_tokens": 30} | fields)).json()
    text: str = answer["choices"][0]["message"]["content"]
    return text
