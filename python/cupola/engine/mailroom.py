"""From a backend's events to the mailboxes of its requests: one reader on the event descriptor serves all streams.

It owns the mailboxes and the tie to an event loop; it knows no prompt and no sampling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cupola.engine.backends.backend import Backend
from cupola.engine.report import RequestReport
from cupola.engine.request import GenerateRequest
from cupola.engine.stream import Mailbox
from cupola.errors import CupolaError, EngineError


class Mailroom:
    """All methods are for the event loop's thread, but `abandon`.

    Args:
        backend: where the deltas come from.
        death: the error of those whose backend has died.
    """

    def __init__(self, backend: Backend, death: Callable[[], EngineError]) -> None:
        self._backend = backend
        self._death = death
        self._mailboxes: dict[int, Mailbox] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._on_end: Callable[[RequestReport], None] = _ignore

    def watch(self, on_end: Callable[[RequestReport], None]) -> None:
        """Have the numbers of every request reported when it ends."""
        self._on_end = on_end

    def __len__(self) -> int:
        """Number of requests that have not ended."""
        return len(self._mailboxes)

    def attach(self) -> None:
        """Serve the running event loop. RuntimeError: requests of another one have not ended."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._mailboxes:
            raise RuntimeError("This engine has running requests on another event loop")
        self._detach()
        self._idle = asyncio.Event()
        self._idle.set()
        loop.add_reader(self._backend.event_fd, self._on_event)
        self._loop = loop

    def submit(self, request: GenerateRequest, mailbox: Mailbox) -> None:
        """Hand a request to the backend, and its deltas to the mailbox. Raises as `Backend.add` does."""
        self._backend.add(request)
        # The reader runs on this loop, so no delta can have been dispatched between `add` and here.
        self._mailboxes[request.id] = mailbox
        self._idle.clear()

    def abort(self, request_id: int) -> None:
        """Have the backend end a request. Unknown and ended ones are ignored."""
        if request_id in self._mailboxes:
            self._backend.abort(request_id)

    def abort_all(self) -> None:
        """Have the backend end every request."""
        for request_id in list(self._mailboxes):
            self._backend.abort(request_id)

    async def wait_idle(self) -> None:
        """Wait until every request has ended."""
        await self._idle.wait()

    def abandon(self, request_id: int) -> None:
        """Nobody reads a request's output any more: end it. May be called on any thread."""
        # A dropped stream may be collected on any thread: nothing here may touch the loop directly.
        mailbox = self._mailboxes.pop(request_id, None)
        if mailbox is None or self._closed:
            return
        self._backend.abort(request_id)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._note_end, mailbox)

    def close(self, error: CupolaError) -> None:
        """Let go of the event loop, and fail every request."""
        self._closed = True
        self._detach()
        self._fail_all(error)

    def _detach(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._backend.event_fd)
        self._loop = None

    def _on_event(self) -> None:
        for delta in self._backend.take():
            mailbox = self._mailboxes.get(delta.request_id)
            if mailbox is None:
                continue  # abandoned by its reader
            try:
                mailbox.put(delta)
            except Exception as error:  # a fault in the text of one request must not stop the others
                mailbox.fail(EngineError(f"The output could not be decoded: {error}"))
            if mailbox.ended:
                self._mailboxes.pop(delta.request_id, None)
                self._note_end(mailbox)
                if delta.finish_reason is None:
                    self._backend.abort(delta.request_id)
        if not self._backend.alive:
            self._detach()
            self._fail_all(self._death())

    def _note_end(self, mailbox: Mailbox) -> None:
        self._on_end(mailbox.report())
        if not self._mailboxes:
            self._idle.set()

    def _fail_all(self, error: CupolaError) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.fail(error)
            self._on_end(mailbox.report())
        self._mailboxes.clear()
        self._idle.set()


def _ignore(_report: RequestReport) -> None:
    pass
