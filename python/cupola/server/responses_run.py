"""A response while it runs: what the engine does for it, and how it can be cancelled from another request.

Knows no wire format; its deltas are those of the reply, and at the end, where that is not the model's own, an `Ending`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from cupola.errors import CupolaError, RequestError
from cupola.protocol.errors import ApiError, api_error
from cupola.protocol.generation import Usage
from cupola.server.generation import Job
from cupola.server.reply import Reply, ReplyDelta
from cupola.server.responses_frames import Ending, ResponseFrames


class ResponseRun:
    """A reply of one choice that may be cancelled, and that tells its errors as deltas where it is streamed."""

    def __init__(self, reply: Reply, rename: Callable[[RequestError], RequestError]) -> None:
        """`rename` gives an error of the engine the names that the endpoint has for the fields."""
        self._reply = reply
        self._rename = rename
        self._reader: asyncio.Task[object] | None = None  # while it waits for the next delta
        self._cancelled = asyncio.Event()
        self._over = asyncio.Event()
        self._tell: list[Callable[[], object]] = []

    def cancel(self) -> None:
        """Ends the reply as soon as its reader is back; may be called twice, and too late."""
        if not self._cancelled.is_set() and self._reader is not None:
            self._reader.cancel()
        self._cancelled.set()

    def on_over(self, tell: Callable[[], object]) -> None:
        """Has this called when nothing of it runs any more."""
        self._tell.append(tell)

    async def over(self) -> None:
        """Waits until nothing of it runs any more."""
        await self._over.wait()

    async def start(self) -> None:
        """Hands it to the engine; what that refuses is raised here."""
        try:
            await self._reply.start()
        except RequestError as error:
            raise self._rename(error) from error

    async def aclose(self) -> None:
        """Ends what still runs; may be called at any time, and twice."""
        await self._reply.aclose()
        self._over.set()
        for tell in self._tell:
            tell()

    @property
    def jobs(self) -> Sequence[Job]:
        """Its one choice."""
        return self._reply.jobs

    @property
    def first_token(self) -> float | None:
        """When the first token came, by `time.perf_counter`."""
        return self._reply.first_token

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return self._reply.usage

    async def deltas(self) -> AsyncGenerator[tuple[int, ReplyDelta | Ending], None]:
        """The reply, and how it ended if it did not end by itself."""
        async with contextlib.aclosing(self._reply.deltas()) as deltas:
            while (arrived := await self._next(deltas)) is not None:
                yield 0, arrived
                if isinstance(arrived, Ending):
                    return

    async def answers(self) -> list[list[ReplyDelta]]:
        """Waits for the end, and gives everything at once; an error is raised."""
        async with contextlib.aclosing(self._reply.deltas()) as deltas:
            return [[delta async for _, delta in deltas]]

    async def _next(self, deltas: AsyncGenerator[tuple[int, ReplyDelta], None]) -> ReplyDelta | Ending | None:
        if self._cancelled.is_set():
            return Ending()
        task = asyncio.current_task()
        assert task is not None
        self._reader = task
        try:
            _, delta = await anext(deltas)
        except StopAsyncIteration:
            return None
        except ApiError as error:
            return Ending(error)
        except CupolaError as error:
            return Ending(api_error(error))
        except asyncio.CancelledError:
            if not self._cancelled.is_set() or task.uncancel() > 0:
                raise  # it is not, or not only, `cancel` that ends the task
            return Ending()
        finally:
            self._reader = None
        return delta


@dataclass(frozen=True, slots=True)
class RunningResponse:
    """A response that is being streamed, as other requests can see it."""

    run: ResponseRun
    frames: ResponseFrames


class RunningResponses:
    """All of one server, by owner and id."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], RunningResponse] = {}

    def show(self, key: tuple[str, str], running: RunningResponse) -> None:
        """It can be found from now on until it is over."""
        self._running[key] = running
        running.run.on_over(lambda: self._running.pop(key, None))

    def find(self, owner: str, response_id: str) -> RunningResponse | None:
        """The one of that id, if its owner asks."""
        return self._running.get((owner, response_id))
