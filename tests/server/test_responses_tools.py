"""Thoughts and calls in `/v1/responses`: the scripted model writes exactly what a family of models would."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from openai.types.responses import Response as SdkResponse

from stand import CHAT, Stand, open_stand

RESPONSES = "/v1/responses"
THOUGHTS = "<think>\nTwo places.\n</think>\n\n"
CALL = '\n<tool_call>\n{{"name": "weather", "arguments": {{"city": "{}"}}}}\n</tool_call>'
CALLS = CALL.format("Oslo") + CALL.format("Rome")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "name": "weather", "description": "The weather.", "parameters": PARAMETERS, "strict": False}
Json = dict[str, object]


@pytest.fixture
async def thinker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    """A model that thinks and calls as Qwen 3 does, and whose whole reply follows the grammar that a test gives."""
    monkeypatch.setattr("cupola.server.reply.reply_grammar", lambda _plan, _conversation, content: content)
    monkeypatch.setattr("cupola.server.reply.calls_are_guaranteed", lambda _conversation, _content: False)
    async with open_stand(reply_format="hermes+think") as opened:
        yield opened


def saying(text: str, **fields: object) -> Json:
    """A request to which the model answers just this."""
    asked = {"model": "scripted", "input": "The weather?", "tools": [TOOL]}
    return asked | {"structured_outputs": {"choice": [text]}} | fields


async def ask(stand: Stand, text: str, **fields: object) -> Json:
    """The response in which the model says this, whole; a stream of it has to end with the same."""
    answer = await stand.client.post(RESPONSES, json=saying(text, **fields))
    assert answer.status_code == 200, answer.text
    SdkResponse.model_validate(answer.json())
    stream = await stand.client.post(RESPONSES, json=saying(text, stream=True, **fields))
    last = json.loads(stream.text.splitlines()[-2].removeprefix("data: "))["response"]
    assert [bare(item) for item in last["output"]] == [bare(item) for item in answer.json()["output"]]
    assert last["usage"]["output_tokens_details"] == answer.json()["usage"]["output_tokens_details"]
    return answer.json()


def bare(item: Json) -> Json:
    """An item without the names that are made up."""
    return {name: value for name, value in item.items() if name not in ("id", "call_id")}


async def test_thoughts_a_message_and_calls_are_items(thinker: Stand) -> None:
    response = await ask(thinker, f"{THOUGHTS}I shall look.{CALLS}")
    text = {"type": "output_text", "annotations": [], "logprobs": [], "text": "I shall look."}
    call = {"type": "function_call", "status": "completed", "name": "weather"}
    assert [bare(item) for item in response["output"]] == [
        {
            "type": "reasoning",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Two places."}],
        },
        {"type": "message", "status": "completed", "role": "assistant", "content": [text]},
        call | {"arguments": '{"city": "Oslo"}'},
        call | {"arguments": '{"city": "Rome"}'},
    ]
    assert response["status"] == "completed"
    assert len({item["id"] for item in response["output"]}) == 4
    assert len({item["call_id"] for item in response["output"][2:]}) == 2
    spent = response["usage"]["output_tokens_details"]["reasoning_tokens"]
    assert len("Two places.") <= spent <= len(THOUGHTS), "the scripted model has a token a byte"


async def test_thoughts_as_a_summary(thinker: Stand) -> None:
    response = await ask(thinker, f"{THOUGHTS}Fine.", reasoning={"summary": "auto"})
    assert bare(response["output"][0]) == {
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "Two places."}],
    }


async def test_log_probabilities_leave_out_the_thoughts(thinker: Stand) -> None:
    response = await ask(thinker, f"{THOUGHTS}Fine.", include=["message.output_text.logprobs"])
    [part] = response["output"][1]["content"]
    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"] == "Fine."


async def test_a_call_is_answered_and_the_conversation_goes_on(thinker: Stand) -> None:
    first = await ask(thinker, f"{THOUGHTS}{CALLS}", instructions="Be exact.")
    calls = [item for item in first["output"] if item["type"] == "function_call"]
    results = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": f"{n} degrees"}
        for n, call in enumerate(calls)
    ]
    plain = {"model": "scripted", "tools": [TOOL], "max_output_tokens": 9, "temperature": 0}
    going_on = plain | {"input": results, "previous_response_id": first["id"]}
    second = (await thinker.client.post(RESPONSES, json=going_on)).json()
    by_hand = plain | {"input": [{"role": "user", "content": "The weather?"}, *first["output"], *results]}
    again = (await thinker.client.post(RESPONSES, json=by_hand)).json()
    assert [bare(item) for item in second["output"]] == [bare(item) for item in again["output"]]
    function = {name: TOOL[name] for name in ("name", "description", "parameters", "strict")}
    chat = {
        "model": "scripted",
        "temperature": 0,
        "max_tokens": 9,
        "tools": [{"type": "function", "function": function}],
        "messages": [
            {"role": "user", "content": "The weather?"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Two places.",
                "tool_calls": [
                    {
                        "id": call["call_id"],
                        "type": "function",
                        "function": {"name": call["name"], "arguments": call["arguments"]},
                    }
                    for call in calls
                ],
            },
            *({"role": "tool", "tool_call_id": one["call_id"], "content": one["output"]} for one in results),
        ],
    }
    told = (await thinker.client.post(CHAT, json=chat)).json()["choices"][0]["message"]["content"]
    assert second["output"][0]["content"][0]["text"] == told
    listed = await thinker.client.get(f"{RESPONSES}/{second['id']}/input_items", params={"order": "asc"})
    kinds = [item["type"] for item in listed.json()["data"]]
    assert kinds == ["message", "reasoning"] + ["function_call"] * 2 + ["function_call_output"] * 2


async def test_an_answer_without_its_call_is_refused(thinker: Stand) -> None:
    alone = [{"type": "function_call_output", "call_id": "call_x", "output": "3"}]
    error = (await thinker.client.post(RESPONSES, json=saying("x", input=alone))).json()["error"]
    assert (error["param"], error["code"]) == ("input.0", "invalid_value")
    assert "call_x" in error["message"]


async def test_thoughts_that_are_cut_off(thinker: Stand) -> None:
    response = await ask(thinker, f"{THOUGHTS}Fine.", max_output_tokens=14)
    assert response["status"] == "incomplete"
    [item] = response["output"]
    assert (item["type"], item["status"]) == ("reasoning", "incomplete")
    going_on = {"model": "scripted", "input": "Go on.", "previous_response_id": response["id"], "max_output_tokens": 2}
    assert (await thinker.client.post(RESPONSES, json=going_on)).status_code == 200


async def test_a_call_that_is_cut_off_is_no_part_of_what_goes_on(stand: Stand) -> None:
    asked = {"model": "scripted", "input": "The weather?", "tools": [TOOL], "tool_choice": "required"}
    response = (await stand.client.post(RESPONSES, json=asked | {"max_output_tokens": 75})).json()
    [call] = response["output"]
    assert (response["status"], call["type"], call["status"]) == ("incomplete", "function_call", "incomplete")
    assert call["arguments"].startswith('{"city"')
    plain = {"model": "scripted", "temperature": 0, "max_output_tokens": 5}
    going_on = plain | {"input": "Go on.", "previous_response_id": response["id"]}
    second = (await stand.client.post(RESPONSES, json=going_on)).json()
    said = [{"role": "user", "content": text} for text in ("The weather?", "Go on.")]
    without = (await stand.client.post(RESPONSES, json=plain | {"input": said})).json()
    assert [bare(item) for item in second["output"]] == [bare(item) for item in without["output"]]


@pytest.mark.parametrize("strict", [True, False])
async def test_calls_fit_their_schema(stand: Stand, strict: bool) -> None:
    tool = TOOL | {"strict": strict, "parameters": PARAMETERS | {"properties": {"city": {"enum": ["Oslo", "Rome"]}}}}
    asked = {"model": "scripted", "input": "x", "tools": [tool], "tool_choice": {"type": "function", "name": "weather"}}
    response = (await stand.client.post(RESPONSES, json=asked | {"parallel_tool_calls": False})).json()
    [call] = response["output"]
    assert json.loads(call["arguments"])["city"] in ("Oslo", "Rome")
    assert response["status"] == "completed"
