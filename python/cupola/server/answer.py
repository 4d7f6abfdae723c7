"""How a run of the engine becomes a response, whole or streamed: the same for every generating endpoint.

An endpoint brings what is its own: the frames of its stream, or a function that builds its response. What runs is a
`Generation`, whose deltas are text, or a `Reply`, whose deltas are parsed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from cupola.protocol.generation import Usage
from cupola.server.connection import until_disconnect
from cupola.server.generation import Job
from cupola.server.json_response import json_response
from cupola.server.record import record_of
from cupola.server.sse import EventStream

Delta = TypeVar("Delta")
Answer = TypeVar("Answer")
DeltaIn = TypeVar("DeltaIn", contravariant=True)
DeltaOut = TypeVar("DeltaOut", covariant=True)


class Run(Protocol[DeltaOut, Answer]):
    """What the engine does for one request: one or more choices, side by side."""

    async def start(self) -> None:
        """Hands every choice to the engine; what it refuses is raised here."""

    async def aclose(self) -> None:
        """Ends what still runs; may be called at any time, and twice."""

    def deltas(self) -> AsyncGenerator[tuple[int, DeltaOut], None]:
        """(index of the choice, what is new about it)."""

    async def answers(self) -> list[Answer]:
        """Waits for all choices, and gives each as a whole."""

    @property
    def jobs(self) -> Sequence[Job]:
        """One for each choice."""

    @property
    def usage(self) -> Usage:
        """Tokens so far."""

    @property
    def first_token(self) -> float | None:
        """When the first token came, by `time.perf_counter`."""


class Frames(Protocol[DeltaIn]):
    """The frames of one stream, as bytes ready to send. `index` counts the choices."""

    def begin(self, index: int, /) -> bytes:
        """What comes before the first token of a choice; empty where an endpoint has nothing to say."""

    def more(self, index: int, delta: DeltaIn, /) -> bytes:
        """More of a choice; empty where the client sees nothing of it yet."""

    def finish(self, index: int, delta: DeltaIn, /) -> bytes:
        """The end of a choice, after its last delta; empty after any other. Raises what is no success."""

    def usage(self, usage: Usage, /) -> bytes:
        """The tokens of the whole response, and whatever else ends it; may be empty."""


async def whole(
    request: Request, run: Run[Delta, Answer], build: Callable[[Sequence[Answer], Usage], BaseModel]
) -> Response:
    """Waits for all of the answer; ends the run when the client goes away."""

    async def work() -> list[Answer]:
        try:
            await run.start()
            return await run.answers()
        finally:
            await run.aclose()

    try:
        answers = await until_disconnect(request, work())
    finally:
        _note(request, run)
    return json_response(build(answers, run.usage).model_dump_json().encode())


async def stream(request: Request, run: Run[Delta, Answer], frames: Frames[Delta]) -> Response:
    """Starts the run, so that a refusal still has a status, and streams it."""
    await run.start()

    async def close() -> None:
        await run.aclose()
        _note(request, run)

    return EventStream(_frames(run, frames), close)


async def _frames(run: Run[Delta, Answer], frames: Frames[Delta]) -> AsyncGenerator[bytes, None]:
    yield b"".join(frames.begin(index) for index in range(len(run.jobs)))
    async for index, delta in run.deltas():
        more = frames.more(index, delta)
        try:
            end = frames.finish(index, delta)
        except Exception:
            yield more  # what came before an end that is no success is told first
            raise
        yield more + end
    yield frames.usage(run.usage)


def _note(request: Request, run: Run[Delta, Answer]) -> None:
    """Tells the log and the metrics what the request cost."""
    record = record_of(request.scope)
    record.first_token = run.first_token
    record.prompt_tokens = run.usage.prompt_tokens
    record.completion_tokens = run.usage.completion_tokens
