"""The events of `/v1/responses`, byte for byte what the official types say, and adding up to the response."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response as SdkResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from cupola.engine.output import ScoredPosition, ScoredToken
from cupola.protocol.errors import ApiError
from cupola.protocol.generation import Usage
from cupola.protocol.responses import ResponseRequest
from cupola.protocol.responses_object import ResponseObject
from cupola.server.dialect import dialect_of
from cupola.server.reply import ReplyDelta
from cupola.server.responses_frames import Ending, ResponseFrames
from cupola.text.reply_parser import (
    ContentDelta,
    ReasoningDelta,
    ReplyEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)

EVENT = TypeAdapter(ResponseStreamEvent)
Event = dict[str, object]


def frames(**options: object) -> ResponseFrames:
    """Frames of a response to a plain request."""
    request = ResponseRequest.model_validate({"model": "m", "input": "x", "metadata": {"a": "b"}})
    return ResponseFrames(ResponseObject.begun(request, "m", 1.0, 1.0), **options)


def told(data: bytes) -> list[Event]:
    """The events in these bytes, each checked against the official types."""
    events: list[Event] = []
    for block in data.decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        event = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        events.append(event)
    return events


def run(writer: ResponseFrames, deltas: Sequence[ReplyDelta | Ending], usage: Usage | None = None) -> list[Event]:
    """All events of a response."""
    data = writer.begin(0)
    for delta in deltas:
        data += writer.more(0, delta) + writer.finish(0, delta)
    events = told(data + writer.usage(usage or Usage.of(5, 7, 3, 2)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def short(events: Sequence[Event]) -> list[str]:
    """The types, without what they all begin with."""
    return [str(event["type"]).removeprefix("response.") for event in events]


def position(text: bytes) -> ScoredPosition:
    """A token with a log-probability."""
    token = ScoredToken(1, text, -0.5, 1)
    return ScoredPosition(token, (token,))


THOUGHTS = [ReplyDelta((ReasoningDelta("Let "),)), ReplyDelta((ReasoningDelta("me see."),))]
TEXT = [ReplyDelta((ContentDelta("Hello"),)), ReplyDelta((ContentDelta(' "you"'),))]
CALL = [
    ReplyDelta((ToolCallBegin(0, "call_1", "add"), ToolCallArguments(0, '{"a"'))),
    ReplyDelta((ToolCallArguments(0, ":1}"), ToolCallEnd(0))),
]
MESSAGE_EVENTS = ["output_item.added", "content_part.added", "output_text.delta", "output_text.delta"]
MESSAGE_EVENTS += ["output_text.done", "content_part.done", "output_item.done"]


def test_a_message() -> None:
    writer = frames()
    events = run(writer, [*TEXT, ReplyDelta((), finish="stop")])
    assert short(events) == ["created", "in_progress", *MESSAGE_EVENTS, "completed"]
    item = events[2]["item"]
    assert item | {"id": "?"} == {
        "id": "?", "type": "message", "role": "assistant", "status": "in_progress", "content": []
    }  # fmt: skip
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    assert events[3] == place | {
        "type": "response.content_part.added",
        "sequence_number": 3,
        "part": {"type": "output_text", "annotations": [], "logprobs": [], "text": ""},
    }
    assert events[5] == place | {
        "type": "response.output_text.delta", "sequence_number": 5, "delta": ' "you"', "logprobs": []
    }  # fmt: skip
    assert events[6]["text"] == 'Hello "you"'
    whole = {"type": "output_text", "annotations": [], "logprobs": [], "text": 'Hello "you"'}
    assert events[7]["part"] == whole
    assert events[8]["item"] == item | {"status": "completed", "content": [whole]}
    assert events[-1]["response"]["output"] == [events[8]["item"]]


def test_the_response_says_what_was_asked_and_what_came_of_it() -> None:
    writer = frames()
    events = run(writer, [*TEXT, ReplyDelta((), finish="stop")])
    first, last = events[0]["response"], events[-1]["response"]
    assert (first["status"], first["output"], first["usage"], first["completed_at"]) == ("in_progress", [], None, None)
    assert events[1]["response"] == first
    assert {name for name in first if first[name] != last[name]} == {"status", "output", "usage", "completed_at"}
    assert last["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    assert last["metadata"] == {"a": "b"}
    assert json.loads(writer.response.model_dump_json()) == last


def test_thoughts_in_full() -> None:
    events = run(frames(), [*THOUGHTS, *TEXT, ReplyDelta((), finish="stop")])
    thinking = ["output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"]
    thinking += ["reasoning_text.done", "content_part.done", "output_item.done"]
    assert short(events) == ["created", "in_progress", *thinking, *MESSAGE_EVENTS, "completed"]
    assert events[8]["item"] | {"id": "?"} == {
        "id": "?",
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Let me see."}],
    }
    assert [event["output_index"] for event in events[2:-1]] == [0] * 7 + [1] * 7


def test_thoughts_as_a_summary() -> None:
    events = run(frames(summarized=True), [*THOUGHTS, *TEXT, ReplyDelta((), finish="stop")])
    thinking = ["output_item.added", "reasoning_summary_part.added"]
    thinking += ["reasoning_summary_text.delta"] * 2 + ["reasoning_summary_text.done"]
    thinking += ["reasoning_summary_part.done", "output_item.done"]
    assert short(events) == ["created", "in_progress", *thinking, *MESSAGE_EVENTS, "completed"]
    assert events[8]["item"] | {"id": "?"} == {
        "id": "?",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "Let me see."}],
    }


def test_calls() -> None:
    second = [ReplyDelta((ToolCallBegin(1, "call_2", "now"), ToolCallArguments(1, "{}"), ToolCallEnd(1)))]
    events = run(frames(), [*CALL, *second, ReplyDelta((), finish="tool_calls")])
    one = ["output_item.added", "function_call_arguments.delta"]
    two = ["function_call_arguments.done", "output_item.done"]
    assert short(events) == [
        "created", "in_progress", *one, "function_call_arguments.delta", *two, *one, *two, "completed"
    ]  # fmt: skip
    added = {"id": "?", "type": "function_call", "status": "in_progress", "call_id": "call_1", "name": "add"}
    assert events[2]["item"] | {"id": "?"} == added | {"arguments": ""}
    assert events[5]["arguments"] == '{"a":1}'
    assert events[6]["item"] | {"id": "?"} == added | {"arguments": '{"a":1}', "status": "completed"}
    assert events[-1]["response"]["status"] == "completed"


CUT_CALL = [*CALL[:1], ReplyDelta((ToolCallEnd(0),))]


@pytest.mark.parametrize("deltas", [THOUGHTS, TEXT, CALL[:1], CUT_CALL, [*TEXT, *CUT_CALL]])
def test_what_was_cut_off_is_incomplete(deltas: list[ReplyDelta]) -> None:
    response = run(frames(), [*deltas, ReplyDelta((), finish="length")])[-1]["response"]
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["completed_at"] is None
    assert [item["status"] for item in response["output"]] == ["completed"] * (len(response["output"]) - 1) + [
        "incomplete"
    ]


def test_a_model_that_says_nothing_has_said_something_empty() -> None:
    events = run(frames(), [ReplyDelta((), finish="stop")])
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_an_error_fails_the_response_with_what_there_is() -> None:
    error = ApiError(500, "The engine failed.", code="engine_error")
    events = run(frames(), [*TEXT, Ending(error)])
    assert short(events) == ["created", "in_progress", *MESSAGE_EVENTS, "error", "failed"]
    assert (events[-2]["code"], events[-2]["message"], events[-2]["param"]) == (
        "engine_error", "The engine failed.", None
    )  # fmt: skip
    response = events[-1]["response"]
    assert (response["status"], response["output"][0]["status"]) == ("failed", "incomplete")
    assert response["error"] == {"code": "server_error", "message": "The engine failed."}


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_prompt"), (429, "rate_limit_exceeded")])
def test_errors_have_the_official_codes(status: int, code: str) -> None:
    response = run(frames(), [Ending(ApiError(status, "No."))])[-1]["response"]
    assert (response["error"]["code"], response["output"]) == (code, [])


def test_a_cancelled_response() -> None:
    events = run(frames(), [*TEXT, Ending()])
    assert short(events)[-2:] == ["output_item.done", "incomplete"]
    assert (events[-1]["response"]["status"], events[-1]["response"]["incomplete_details"]) == ("cancelled", None)


def test_log_probabilities_are_those_of_the_text() -> None:
    writer = frames(with_logprobs=True)
    deltas = [
        ReplyDelta((ReasoningDelta("hm"),), logprobs=(position(b"<think>"), position(b"hm"))),
        ReplyDelta((), logprobs=(position(b"</th"),)),
        ReplyDelta((ReasoningDelta("!"), ContentDelta("Hi")), logprobs=(position(b"ink>"), position(b"Hi"))),
        ReplyDelta((), logprobs=(position("é".encode()[:1]),)),
        ReplyDelta((ContentDelta("é"),), logprobs=(position("é".encode()[1:]),)),
        ReplyDelta((), logprobs=(position(b"."),), finish="stop"),
    ]
    events = run(writer, deltas)
    pieces = [(e["delta"], len(e["logprobs"])) for e in events if e["type"] == "response.output_text.delta"]
    assert pieces == [("Hi", 1), ("é", 2), ("", 1)]
    [text] = events[-1]["response"]["output"][1]["content"]
    assert [entry["token"] for entry in text["logprobs"]] == ["Hi", "\ufffd", "\ufffd", "."]
    assert bytes(b for entry in text["logprobs"][:3] for b in entry["bytes"]).decode() == "Hié"
    assert text["logprobs"][0]["top_logprobs"] == [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]


def test_the_end_is_told_once_before_the_last_event() -> None:
    ended: list[ResponseObject] = []
    writer = frames(on_end=ended.append)
    run(writer, [*TEXT, ReplyDelta((), finish="stop")])
    assert ended == [writer.response]


@st.composite
def replies(draw: st.DrawFn) -> list[ReplyDelta | Ending]:
    """Any reply that a parser can tell, cut into pieces anywhere."""
    events: list[ReplyEvent] = []
    for index, kind in enumerate(draw(st.lists(st.sampled_from("rtc"), max_size=5))):
        pieces = draw(st.lists(st.text(max_size=5), max_size=3))
        if kind == "c":
            events.append(ToolCallBegin(index, f"call_{index}", draw(st.text("ab", min_size=1, max_size=3))))
            events += [ToolCallArguments(index, piece) for piece in pieces]
            events.append(ToolCallEnd(index))
        else:
            events += [ReasoningDelta(piece) if kind == "r" else ContentDelta(piece) for piece in pieces]
    cuts = sorted(draw(st.lists(st.integers(0, len(events)), max_size=6)))
    deltas = [ReplyDelta(tuple(events[start:end])) for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    last = draw(st.sampled_from(["stop", "length", "tool_calls", "error", "cancel"]))
    ends = {"error": Ending(ApiError(500, "x")), "cancel": Ending()}
    return [*deltas, ends[last] if last in ends else ReplyDelta((), finish=last)]


@given(replies(), st.booleans())
def test_the_official_client_puts_together_what_the_response_says(
    deltas: list[ReplyDelta | Ending], summarized: bool
) -> None:
    writer = frames(summarized=summarized)
    events = run(writer, deltas)
    final = events[-1]["response"]
    SdkResponse.model_validate(final)
    state: ResponseStreamState[None] = ResponseStreamState(input_tools=[], text_format=omit)
    for event in events:
        state.handle_event(construct_type_unchecked(type_=ResponseStreamEvent, value=event))
    if final["status"] == "completed":
        assert state._completed_response is not None
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == final["output"]
    whole = "".join(part["text"] for item in done if item["type"] == "message" for part in item["content"])
    deltas_of_text = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas_of_text) == whole


def test_a_server_that_goes_away_ends_the_stream_in_the_same_shape() -> None:
    dialect = dialect_of("/v1/responses")
    [event] = told(dialect.error_frame(ApiError(503, "Shutting down.", code="draining"), "req"))
    assert (event["type"], event["code"], event["message"]) == ("error", "draining", "Shutting down.")
    assert dialect.done == b""
    assert dialect_of("/v1/responses/input_tokens").done != b"", "only streams of events end so"
