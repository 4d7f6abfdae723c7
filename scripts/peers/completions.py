"""`/v1/completions` over somebody else's engine: as much of OpenAI's API as `cupola bench` needs, and no more.

It owns the HTTP side and the tokens' way to text and back; a peer's server adds an `Engine` of a few lines. It runs in
the peer's own environment and knows nothing of Cupola. One thread steps the engine; requests reach it through a queue,
and the tokens of one step go back to asyncio in one call. A client that goes away is not noticed: its request runs to
its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import uvicorn
from tokenizers import Tokenizer

_UNFINISHED = "\ufffd"  # what the tokenizer shows of half a character

Send = Callable[[Mapping[str, object]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, object]]]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One greedy completion.

    Args:
        ids: the prompt.
        max_tokens: the most tokens of the answer.
        ignore_eos: go on past the end of sequence.
        pieces: takes the tokens as they come, then None.
    """

    ids: list[int]
    max_tokens: int
    ignore_eos: bool
    pieces: asyncio.Queue[list[int] | None]


@dataclass(frozen=True, slots=True)
class Output:
    """New tokens of a request."""

    request: Request
    ids: list[int]
    finished: bool


class Engine(Protocol):
    """A peer's engine. One thread makes it and calls it."""

    patience: float
    """Seconds that the first requests after a pause wait for others to share their batch."""

    def add(self, request: Request) -> None:
        """Take a request."""
        ...

    def step(self) -> list[Output]:
        """Compute something for the requests that are not finished, of which there is at least one."""
        ...


class _Worker(threading.Thread):
    """Makes the engine, steps it while there is work, and waits otherwise. Its death is the process's."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        super().__init__(daemon=True)
        self.inbox: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, Request]] = queue.SimpleQueue()
        self.ready = threading.Event()
        self._load = load
        self._running = 0

    def run(self) -> None:
        try:
            engine = self._load()
            self.ready.set()
            loop: asyncio.AbstractEventLoop | None = None
            while True:
                loop = self._take_requests(engine) or loop
                outputs = engine.step()
                self._running -= sum(output.finished for output in outputs)
                if outputs and loop is not None:
                    loop.call_soon_threadsafe(_deliver, outputs)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _take_requests(self, engine: Engine) -> asyncio.AbstractEventLoop | None:
        """All that have come, and the loop that they came from; if the engine has nothing to do, wait for one."""
        loop = None
        idle = self._running == 0
        while True:
            try:
                timeout = None if self._running == 0 else engine.patience
                loop, request = self.inbox.get(block=idle, timeout=timeout)
            except queue.Empty:
                return loop
            engine.add(request)
            self._running += 1


def _deliver(outputs: list[Output]) -> None:
    for output in outputs:
        if output.ids:
            output.request.pieces.put_nowait(output.ids)
        if output.finished:
            output.request.pieces.put_nowait(None)


class Completions:
    """The ASGI application.

    Args:
        name: the model's name.
        tokenizer: the model's `tokenizer.json`.
        load: makes the engine.
    """

    def __init__(self, name: str, tokenizer: Path, load: Callable[[], Engine]) -> None:
        self._name = name
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._worker = _Worker(load)
        self._worker.start()
        self._worker.ready.wait()

    async def __call__(self, scope: Mapping[str, object], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/v1/models":
            await _send_whole(send, 200, {"data": [{"id": self._name, "object": "model"}]})
        elif scope["path"] == "/v1/completions":
            await self._complete(json.loads(await _body(receive)), send)
        else:
            await _send_whole(send, 404, {"error": {"message": f"There is no {scope['path']}"}})

    async def _complete(self, body: Mapping[str, object], send: Send) -> None:
        prompt = body["prompt"]
        ids = self._tokenizer.encode(prompt).ids if isinstance(prompt, str) else list(prompt)
        request = Request(ids, int(body.get("max_tokens", 16)), bool(body.get("ignore_eos")), asyncio.Queue())
        self._worker.inbox.put((asyncio.get_running_loop(), request))
        await _send_start(send, 200, b"text/event-stream" if body.get("stream") else b"application/json")
        counted = 0
        text = ""
        async for count, piece in self._texts(request):
            counted += count
            text += piece
            if piece and body.get("stream"):
                await _send_part(send, _event(self._frame(piece, None)))
        reason = "length" if counted >= request.max_tokens else "stop"
        usage = {"prompt_tokens": len(ids), "completion_tokens": counted, "total_tokens": len(ids) + counted}
        if body.get("stream"):
            end = _event(self._frame("", reason)) + _event({**self._frame(None, None), "usage": usage})
            await _send_part(send, end + b"data: [DONE]\n\n", last=True)
        else:
            await _send_part(send, json.dumps({**self._frame(text, reason), "usage": usage}).encode(), last=True)

    async def _texts(self, request: Request) -> AsyncIterator[tuple[int, str]]:
        """Tokens by their number and their text; a character's text comes with its last token."""
        waiting: list[int] = []
        while (ids := await request.pieces.get()) is not None:
            waiting += ids
            text = self._tokenizer.decode(waiting)
            if text.endswith(_UNFINISHED):
                text = ""
            else:
                waiting = []
            yield len(ids), text

    def _frame(self, text: str | None, reason: str | None) -> dict[str, object]:
        choices = [] if text is None else [{"index": 0, "text": text, "finish_reason": reason}]
        return {"id": "cmpl-0", "object": "text_completion", "model": self._name, "choices": choices}


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part = message.get("body", b"")
        assert isinstance(part, bytes)
        body += part
        if not message.get("more_body"):
            return body


def _event(frame: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


async def _send_start(send: Send, status: int, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})


async def _send_part(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def _send_whole(send: Send, status: int, body: Mapping[str, object]) -> None:
    await _send_start(send, status, b"application/json")
    await _send_part(send, json.dumps(body).encode(), last=True)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of a peer's server."""

    folder: Path
    port: int
    threads: int
    max_batch: int
    tokens: int


def read_options(description: str) -> Options:
    """Reads the command line that all peers' servers share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, help="the exported model, with its tokenizer.json")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=40960, help="of context that all sequences share")
    chosen = parser.parse_args()
    return Options(chosen.folder, chosen.port, chosen.threads, chosen.max_batch, chosen.tokens)


def serve(options: Options, load: Callable[[Options], Engine]) -> None:
    """Serve until SIGTERM."""
    app = Completions(options.folder.name, options.folder / "tokenizer.json", lambda: load(options))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", lifespan="off")
