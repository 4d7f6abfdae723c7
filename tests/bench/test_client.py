"""The client against real sockets: what a good server sends, and all that a bad one may do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from cupola.bench.client import Client
from cupola.errors import CupolaError, EngineError, RequestError, UsageError
from serving import ServerProcess
from stand import until

Answer = Callable[[bytes], list[bytes]]


def frame(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


TEXT = frame(choices=[{"text": "x", "finish_reason": None}], usage=None)
END = frame(choices=[{"text": "", "finish_reason": "length"}], usage=None)
USAGE = frame(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"
MODELS = b'{"data": [{"id": "m"}]}'


def http(body: bytes, status: str = "200 OK", length: bool = True) -> bytes:
    size = f"Content-Length: {len(body)}\r\n" if length else ""
    return f"HTTP/1.1 {status}\r\n{size}\r\n".encode() + body


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """A server that sends what `answer` makes of a request, in these pieces, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in request.split(b"\r\n") if line.startswith(b"Content-Length:"))
        for piece in answer(request + await reader.readexactly(length)):
            writer.write(piece)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def models_or(completion: Answer) -> Answer:
    return lambda request: [http(MODELS)] if request.startswith(b"GET") else completion(request)


async def complete(*pieces: bytes) -> object:
    """What the client makes of an answer in these pieces."""
    async with server(lambda _: list(pieces)) as url:
        return await Client(url, "m").complete("hello", 2)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://host:port", "http://[::1", "http://host:99999"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="URL") as error:
        Client(url)
    assert "http://127.0.0.1:8000" in (error.value.hint or "")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, and at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_nobody_listens(silent_port: int) -> None:
    with pytest.raises(EngineError, match="cannot be reached") as error:
        await Client(f"http://127.0.0.1:{silent_port}").connect()
    assert "Is the server running" in (error.value.hint or "")


async def test_an_unknown_host() -> None:
    with pytest.raises(EngineError, match=r"http://no-such-host\.invalid cannot be reached"):
        await Client("http://no-such-host.invalid").connect()


async def test_a_stream_is_read_whole_wherever_it_is_cut() -> None:
    stream = TEXT + b": ping\n\n" + TEXT.replace(b"\n\n", b"\r\n\r\n") + END + USAGE + DONE
    for cut in range(1, len(stream), 7):
        sample = await complete(http(b"", length=False), stream[:cut], stream[cut:])
        assert (sample.prompt_tokens, sample.completion_tokens, len(sample.arrivals)) == (3, 2, 2)
        assert sample.start <= sample.arrivals[0] <= sample.arrivals[1] <= sample.end


async def test_tokens_without_text_still_have_an_end() -> None:
    sample = await complete(http(END + USAGE + DONE))
    assert sample.arrivals == (sample.end,)


@pytest.mark.parametrize(
    ("pieces", "kind", "says"),
    [
        ([http(TEXT + END + DONE)], EngineError, "how many tokens"),
        ([http(TEXT + USAGE + DONE)], EngineError, "without a finish reason"),
        ([http(b"data: {\n\n")], EngineError, "not OpenAI's"),
        ([http(TEXT + frame(error={"message": "out of luck"}) + DONE)], EngineError, "out of luck"),
        ([http(b'{"error": {"message": "no such field"}}', "400 Bad Request")], RequestError, "400: no such field"),
        ([http(b"busy", "503 Service Unavailable")], EngineError, "503: busy"),
        ([http(b"", "500 Internal Server Error")], EngineError, "500: Internal Server Error"),
        ([b"SSH-2.0-OpenSSH\r\n"], EngineError, "does not speak HTTP"),
        ([], EngineError, "closed the connection"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", TEXT], EngineError, "closed the connection"),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n"],
            EngineError,
            "closed the connection",
        ),
    ],
)
async def test_what_is_wrong_is_said(pieces: list[bytes], kind: type[CupolaError], says: str) -> None:
    with pytest.raises(kind, match=says) as error:
        await complete(*pieces)
    assert "http://127.0.0.1:" in error.value.message


@pytest.mark.parametrize("models", [b"{}", b"[", b'{"data": []}'])
async def test_a_server_without_models(models: bytes) -> None:
    async with server(lambda _: [http(models)]) as url:
        with pytest.raises(EngineError, match="model"):
            await Client(url).connect()


async def test_only_extensions_that_the_server_knows_are_sent() -> None:
    seen: list[dict[str, object]] = []

    def answer(request: bytes) -> list[bytes]:
        body = json.loads(request.partition(b"\r\n\r\n")[2])
        seen.append(body)
        known = "cache_prompt" not in body
        return [http(TEXT + END + USAGE + DONE) if known else http(b"", "400 Bad Request")]

    async with server(models_or(answer)) as url:
        client = Client(f"{url}/v1/", api_key="secret")
        await client.connect()
        assert client.model == "m"
        await client.complete("hello", 5, reuse_prefix=True)
    assert seen[-1] == {
        "model": "m",
        "prompt": "hello",
        "max_tokens": 5,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }


async def test_a_key_and_a_path_before_v1_are_used() -> None:
    seen: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        seen.append(request)
        return [http(TEXT + END + USAGE + DONE)]

    async with server(models_or(answer)) as url:
        await Client(f"{url}/prefix/v1", "m", api_key="secret").complete("hello", 1)
    assert seen[0].startswith(b"POST /prefix/v1/completions HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in seen[0]


async def test_a_server_that_is_not_ready_is_asked_again_later(silent_port: int) -> None:
    assert await Client(f"http://127.0.0.1:{silent_port}").try_complete("hello", 1) is None
    async with server(lambda _: [http(b"", "503 Service Unavailable")]) as url:
        assert await Client(url).try_complete("hello", 1) is None
    async with server(models_or(lambda _: [http(TEXT + END + USAGE + DONE)])) as url:
        assert await Client(url).try_complete("hello", 1) is not None
    async with server(lambda _: [http(b"", "404 Not Found")]) as url:
        with pytest.raises(RequestError, match="404: Not Found"):
            await Client(url).try_complete("hello", 1)


async def test_cupolas_own_server_is_measured() -> None:
    with ServerProcess("scripted:eos_every=5") as process:
        client = Client(process.url)
        await client.connect()
        assert client.model == "scripted:eos_every=5"
        sample = await client.complete("hello", 40)
        metric = process.metric("cupola:generation_tokens_total")
    assert sample.prompt_tokens == 5
    assert sample.completion_tokens == 40  # past the end of sequence, which comes every fifth token or so
    assert metric >= 40


async def test_a_server_that_dies_in_the_middle_of_an_answer() -> None:
    with ServerProcess("scripted:step_us=20000") as process:
        client = Client(process.url, "scripted:step_us=20000")
        asking = asyncio.create_task(client.complete("hello", 1000))
        await until(lambda: process.metric("cupola:num_requests_running") > 0)
        process.process.kill()
        with pytest.raises(EngineError, match="closed the connection in the middle of an answer"):
            await asking
