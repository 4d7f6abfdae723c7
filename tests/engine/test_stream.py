"""A request's output between the engine and its reader: nothing is lost, whenever the reader comes."""

from __future__ import annotations

import asyncio

import pytest

from cupola.engine.backends.scripted import byte_tokenizer
from cupola.engine.request import Delta, FinishReason
from cupola.engine.stream import Bell, Mailbox, TextStream
from cupola.errors import EngineError

TOKENIZER = byte_tokenizer()


def stream_of(mailbox: Mailbox) -> TextStream:
    return TextStream(mailbox, lambda _: None)


async def test_a_bell_that_rang_before_does_not_let_its_reader_wait() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await asyncio.wait_for(bell.wait(), 100)
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    assert not waiting.done(), "it rings once for all that came before"
    bell.ring()
    bell.ring()
    await asyncio.wait_for(waiting, 100)


async def test_a_reader_that_gave_up_waiting_hears_the_next_ring() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    bell.ring()
    await asyncio.wait_for(bell.wait(), 100)


async def test_a_failure_that_comes_with_tokens_is_told_after_them() -> None:
    mailbox = Mailbox(1, 1, TOKENIZER)
    mailbox.put(Delta(1, (65,)))
    mailbox.put(Delta(1, (), FinishReason.ERROR, "the device is gone"))
    stream = stream_of(mailbox)
    assert (await asyncio.wait_for(anext(stream), 100)).token_ids == (65,)
    with pytest.raises(EngineError, match="the device is gone"):
        await asyncio.wait_for(anext(stream), 100)


async def test_one_bell_wakes_the_reader_of_many_streams_once() -> None:
    bell = Bell()
    mailboxes = [Mailbox(i, 1, TOKENIZER, bell=bell) for i in range(3)]
    streams = [stream_of(mailbox) for mailbox in mailboxes]
    for mailbox in mailboxes[:2]:
        mailbox.put(Delta(mailbox.request_id, (65,)))
        mailbox.put(Delta(mailbox.request_id, (66, 67)))
    await asyncio.wait_for(bell.wait(), 100)
    deltas = [stream.poll() for stream in streams]
    assert [delta and delta.token_ids for delta in deltas] == [(65, 66, 67), (65, 66, 67), None]
    assert [stream.poll() for stream in streams] == [None] * 3
