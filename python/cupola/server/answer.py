"""How a generation becomes a response, whole or streamed: the same for every generating endpoint.

An endpoint brings what is its own: the frames of its stream, or a function that builds its response.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from cupola.engine.output import Completion, TextDelta
from cupola.protocol.generation import Usage
from cupola.server.connection import until_disconnect
from cupola.server.generation import Generation, WireFinishReason, wire_reason
from cupola.server.record import record_of
from cupola.server.responses import json_response
from cupola.server.sse import EventStream


class Frames(Protocol):
    """The frames of one stream, as bytes ready to send. `index` counts the choices."""

    def begin(self, index: int, /) -> bytes:
        """What comes before the first token of a choice; empty where an endpoint has nothing to say."""

    def more(self, index: int, delta: TextDelta) -> bytes:
        """More of a choice; empty where the client sees nothing of it yet."""

    def finish(self, index: int, reason: WireFinishReason) -> bytes:
        """The end of a choice."""

    def usage(self, usage: Usage) -> bytes:
        """The tokens of the whole response; empty where the client did not ask for them."""


async def whole(
    request: Request, generation: Generation, build: Callable[[Sequence[Completion], Usage], BaseModel]
) -> Response:
    """Waits for all of the answer; ends the generation when the client goes away."""

    async def work() -> list[Completion]:
        async with generation:
            return await generation.completions()

    try:
        completions = await until_disconnect(request, work())
    finally:
        _note(request, generation)
    return json_response(build(completions, generation.usage).model_dump_json().encode())


async def stream(request: Request, generation: Generation, frames: Frames) -> Response:
    """Starts the generation, so that a refusal still has a status, and streams it."""
    await generation.start()

    async def close() -> None:
        await generation.aclose()
        _note(request, generation)

    return EventStream(_frames(generation, frames), close)


async def _frames(generation: Generation, frames: Frames) -> AsyncGenerator[bytes, None]:
    yield b"".join(frames.begin(index) for index in range(len(generation.jobs)))
    async for index, delta in generation.deltas():
        yield frames.more(index, delta)
        if delta.finish_reason is not None:
            yield frames.finish(index, wire_reason(delta.finish_reason))
    yield frames.usage(generation.usage)


def _note(request: Request, generation: Generation) -> None:
    """Tells the log and the metrics what the request cost."""
    record = record_of(request.scope)
    record.first_token = generation.first_token
    record.prompt_tokens = generation.usage.prompt_tokens
    record.completion_tokens = generation.usage.completion_tokens
