"""From the engine's deltas to what the client is told: reasoning, its tokens, calls, ends that are errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from cupola.engine.backends.scripted import byte_tokenizer
from cupola.engine.output import ScoredPosition, ScoredToken, TextDelta
from cupola.engine.output import Usage as EngineUsage
from cupola.engine.request import FinishReason, SamplingParams
from cupola.errors import DeadlineError
from cupola.protocol.generation import Usage
from cupola.server.generation import Job
from cupola.server.reply import Reply, ReplyDelta
from cupola.text.call_section import CallRules
from cupola.text.reply_events import ContentDelta, ReasoningDelta
from cupola.text.reply_format import ReplyFormat, format_table
from cupola.text.reply_parser import Reading

TABLE = format_table()
QWEN = Reading(ReplyFormat(TABLE.reasoning["think"], TABLE.calls["hermes"]), CallRules({"now": {}}))


class Scripted:
    """A generation whose choices are known beforehand: each is cut into pieces, one token a byte."""

    def __init__(self, choices: Sequence[Sequence[str]], end: FinishReason = FinishReason.STOP) -> None:
        self._choices = choices
        self._end = end
        self.jobs = [Job(0, [1, 2], SamplingParams()) for _ in choices]
        self.first_token = None
        self.closed = False

    @property
    def usage(self) -> Usage:
        return Usage.of(2, sum(len("".join(pieces).encode()) for pieces in self._choices), 0)

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        self.closed = True

    async def deltas(self) -> AsyncGenerator[tuple[int, TextDelta], None]:
        for index, pieces in enumerate(self._choices):
            for number, piece in enumerate(pieces):
                last = number == len(pieces) - 1
                ids = tuple(piece.encode())
                yield (
                    index,
                    TextDelta(
                        piece,
                        ids,
                        self._end if last else None,
                        EngineUsage(2, len(ids)) if last else None,
                        tuple(ScoredPosition(ScoredToken(token, bytes([token]), -1.0, 1)) for token in ids),
                    ),
                )


def reply(*choices: Sequence[str], reading: Reading = QWEN, end: FinishReason = FinishReason.STOP) -> Reply:
    return Reply(Scripted(choices, end), reading, byte_tokenizer())


THOUGHT = "<think>\nHm 🙂.\n</think>"
CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


async def test_a_reply_is_put_together() -> None:
    [answer] = await reply(list(f"{THOUGHT}\n\nLet me look. {CALL}")).answers()
    assert answer.message.reasoning == "Hm 🙂."
    assert answer.message.text == "Let me look."
    assert [(call.name, call.arguments) for call in answer.message.tool_calls] == [("now", "{}")]
    assert answer.finish == "tool_calls"


async def test_a_limit_is_told_as_such_also_after_a_call() -> None:
    [answer] = await reply([f"{CALL} and"], end=FinishReason.LENGTH).answers()
    assert answer.finish == "length"


async def test_tokens_of_reasoning_are_counted_for_all_choices() -> None:
    run = reply(list(f"{THOUGHT}\n\nYes."), [f"{THOUGHT}Yes."], ["No."])
    await run.answers()
    assert run.usage.reasoning_tokens == 2 * len(THOUGHT.encode())
    assert run.usage.completion_tokens == len(f"{THOUGHT}\n\nYes.{THOUGHT}Yes.No.".encode())


async def test_reasoning_that_does_not_end_is_all_reasoning() -> None:
    run = reply(["<think>Hm", " hm"], end=FinishReason.LENGTH)
    [answer] = await run.answers()
    assert (answer.message.reasoning, answer.message.text) == ("Hm hm", "")
    assert run.usage.reasoning_tokens == len("<think>Hm hm")


async def test_tokens_go_out_with_their_delta_also_where_text_is_held_back() -> None:
    run = reply(["<thi", "nk>a", "</think>b"])
    deltas = [delta async for _, delta in run.deltas()]
    assert [delta.events for delta in deltas] == [(), (ReasoningDelta("a"),), (ContentDelta("b"),)]
    assert [bytes(delta.token_ids) for delta in deltas] == [b"<thi", b"nk>a", b"</think>b"]
    assert [[bytes(p.token.data) for p in delta.logprobs] for delta in deltas] == [
        [bytes([byte]) for byte in delta.token_ids] for delta in deltas
    ]


async def test_an_end_that_is_an_error_is_raised_after_what_came_before() -> None:
    told: list[ReplyDelta] = []
    deltas = reply(["Hel", "lo"], reading=Reading(), end=FinishReason.DEADLINE).deltas()
    told += [(await anext(deltas))[1] for _ in range(2)]
    with pytest.raises(DeadlineError):
        await anext(deltas)
    assert [delta.events for delta in told] == [(ContentDelta("Hel"),), (ContentDelta("lo"),)]
    assert all(delta.finish is None for delta in told)


async def test_the_generation_ends_with_the_block() -> None:
    generation = Scripted([["a"]])
    async with Reply(generation, Reading(), byte_tokenizer()):
        assert not generation.closed
    assert generation.closed
