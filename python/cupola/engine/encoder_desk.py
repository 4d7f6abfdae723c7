"""The jobs of an encoder, for asyncio: from its results to those who wait for them.

It owns the jobs under way and the tie to an event loop. It knows tokens and bytes, no texts and no vectors.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cupola.engine.native_encoder import NativeEmbedder
from cupola.engine.report import RequestReport
from cupola.engine.request import FinishReason
from cupola.errors import CupolaError, EngineError


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text, or a pair of them, as an encoder reads it.

    Args:
        ids: special tokens included.
        types: of each of them; None: the model has one type only.
    """

    ids: Sequence[int]
    types: Sequence[int] | None = None


class EncoderDesk:
    """All methods are for the event loop's thread.

    Args:
        embedder: the runner.
        death: the error of those whose runner has died.
    """

    def __init__(self, embedder: NativeEmbedder, death: Callable[[], EngineError]) -> None:
        self._embedder, self._death = embedder, death
        self._ids = itertools.count(1)
        self._jobs: dict[int, asyncio.Future[bytes]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._on_end: Callable[[RequestReport], None] = _ignore

    def __len__(self) -> int:
        """Number of jobs that have not ended."""
        return len(self._jobs)

    def watch(self, on_end: Callable[[RequestReport], None]) -> None:
        """Have the numbers of every job reported when it ends."""
        self._on_end = on_end

    async def run(self, texts: Sequence[Tokens]) -> bytes:
        """What the encoder makes of some texts: float32, row after row.

        Raises:
            RequestError: a token id is out of range.
            OverloadedError: too many jobs wait, or the runner drains.
            EngineError: it failed.
        """
        self._attach()
        job_id, future = next(self._ids), asyncio.get_running_loop().create_future()
        typed = any(text.types is not None for text in texts)
        types = [text.types or [0] * len(text.ids) for text in texts] if typed else None
        self._embedder.add(job_id, [text.ids for text in texts], types)
        # The reader runs on this loop, so no result can have come between `add` and here.
        self._jobs[job_id] = future
        self._idle.clear()
        finish = FinishReason.ABORT
        try:
            found: bytes = await future
            finish = FinishReason.STOP
            return found
        except CupolaError:
            finish = FinishReason.ERROR
            raise
        finally:
            if self._jobs.pop(job_id, None) is not None:  # cancelled
                self._embedder.abort(job_id)
            tokens = sum(len(text.ids) for text in texts)
            self._on_end(RequestReport(tokens, 0, 0, finish, None, time.perf_counter()))
            self._note_idle()

    def close(self, error: CupolaError) -> None:
        """Let go of the event loop, and fail every job."""
        self._detach()
        self._fail_all(error)

    async def wait_idle(self) -> None:
        """Wait until every job has ended."""
        await self._idle.wait()

    def abort_all(self) -> None:
        """Have the runner end every job."""
        for job_id in self._jobs:
            self._embedder.abort(job_id)

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._jobs:
            raise RuntimeError("This engine has running requests on another event loop")
        self._detach()
        self._idle = asyncio.Event()
        self._idle.set()
        loop.add_reader(self._embedder.event_fd, self._on_event)
        self._loop = loop

    def _detach(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._embedder.event_fd)
        self._loop = None

    def _on_event(self) -> None:
        for result in self._embedder.take():
            future = self._jobs.pop(result.job_id, None)
            if future is None or future.done():
                continue  # nobody waits any more
            if result.error is not None:
                future.set_exception(EngineError(f"the encoder failed: {result.error}"))
            elif result.aborted:
                future.set_exception(EngineError("the request was ended before it was done"))
            else:
                future.set_result(result.vectors)
        if not self._embedder.alive:
            self._detach()
            self._fail_all(self._death())

    def _note_idle(self) -> None:
        if not self._jobs:
            self._idle.set()

    def _fail_all(self, error: CupolaError) -> None:
        for future in self._jobs.values():
            if not future.done():
                future.set_exception(error)
        self._jobs.clear()
        self._idle.set()


def _ignore(_report: RequestReport) -> None:
    pass
