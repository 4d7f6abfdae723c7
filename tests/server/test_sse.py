"""The stream of events: pings, errors, and a client that goes away at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message, Scope

from cupola.errors import EngineError
from cupola.server import sse
from cupola.server.dialect import ANTHROPIC, OPENAI, frame, named_frame
from cupola.server.record import RequestRecord, attach
from cupola.server.sse import EventStream
from stand import until


class Connection:
    """A client's end of an ASGI connection."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Source:
    """Frames from a queue; notes whether the generator was left and the resources were given back."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.left = False
        self.closed = 0

    async def generate(self) -> AsyncGenerator[bytes, None]:
        try:
            while (item := await self.frames.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.left = True

    async def close(self) -> None:
        self.closed += 1


DONE, PING = OPENAI.done, OPENAI.ping


def request(path: str = "/v1/completions") -> Scope:
    """The scope of a request with the id `id-1`."""
    scope: Scope = {"type": "http", "path": path}
    attach(scope, RequestRecord("id-1", "POST", path))
    return scope


async def run(source: Source, connection: Connection, path: str = "/v1/completions") -> None:
    await EventStream(source.generate(), source.close)(request(path), connection.receive, connection.send)


async def test_a_stream_ends_with_done() -> None:
    source, connection = Source(), Connection()
    for item in (frame(b"1"), b"", frame(b"2"), None):
        source.frames.put_nowait(item)
    await run(source, connection)
    assert connection.body == b"data: 1\n\ndata: 2\n\n" + DONE
    assert connection.sent[0]["status"] == 200
    assert connection.sent[-1]["more_body"] is False
    assert len(connection.sent) == 4, "an empty frame is not sent, and the end needs none of its own"
    assert source.closed == 1


@pytest.mark.parametrize(
    ("error", "code"), [(EngineError("Lost"), b"engine_error"), (KeyError("x"), b"internal_error")]
)
async def test_an_error_is_the_last_frame_but_done(error: Exception, code: bytes) -> None:
    source, connection = Source(), Connection()
    for item in (frame(b"1"), error):
        source.frames.put_nowait(item)
    await run(source, connection)
    first, last, done, end = connection.body.split(b"\n\n")
    assert (first, done, end) == (b"data: 1", DONE.strip(), b"")
    assert code in last
    assert b"KeyError" not in last
    assert source.left
    assert source.closed == 1


@pytest.mark.parametrize("before", [0, 1])
async def test_a_client_that_goes_away_ends_the_generator(before: int) -> None:
    source, connection = Source(), Connection()
    for _ in range(before):
        source.frames.put_nowait(frame(b"1"))
    running = asyncio.create_task(run(source, connection))
    await until(lambda: len(connection.sent) == before + 1)
    connection.gone.set()
    await running
    assert source.left
    assert source.closed == 1
    assert DONE not in connection.body


async def test_a_client_that_was_never_there_frees_the_resources() -> None:
    source, connection = Source(), Connection()
    connection.gone.set()
    await run(source, connection)
    assert source.closed == 1


async def test_a_client_that_goes_away_while_it_reads_slowly() -> None:
    source, connection = Source(), Connection()
    blocked = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            blocked.set()
            await asyncio.Event().wait()

    source.frames.put_nowait(frame(b"1"))
    stream = EventStream(source.generate(), source.close)
    running = asyncio.create_task(stream(request(), connection.receive, send))
    await blocked.wait()
    connection.gone.set()
    await running
    assert source.left
    assert source.closed == 1


async def test_silence_is_broken_by_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    source, connection = Source(), Connection()
    running = asyncio.create_task(run(source, connection))
    await until(lambda: connection.body.count(PING) >= 2)
    source.frames.put_nowait(frame(b"1"))
    source.frames.put_nowait(None)
    await running
    assert connection.body.replace(PING, b"") == frame(b"1") + DONE


async def test_each_api_has_its_own_end_errors_and_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    source, connection = Source(), Connection()
    running = asyncio.create_task(run(source, connection, "/v1/messages"))
    await until(lambda: connection.body.count(ANTHROPIC.ping) >= 2)
    source.frames.put_nowait(EngineError("Lost"))
    await running
    body = connection.body.replace(ANTHROPIC.ping, b"")
    name, data = body.removesuffix(b"\n\n").split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {
        "type": "error",
        "error": {"type": "api_error", "message": "Lost.", "details": {"error_code": "engine_error"}},
        "request_id": "id-1",
    }


def test_a_frame_is_one_line_for_clients_that_know_more_line_ends() -> None:
    said = "one\u0085two\u2028three\u2029four \\u0085"
    payload = json.dumps(said, ensure_ascii=False).encode()
    for data in (frame(payload), named_frame(b"delta", payload)):
        *_, line, rest = data.decode().splitlines()
        assert rest == ""
        assert json.loads(line.removeprefix("data: ")) == said
