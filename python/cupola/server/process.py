"""The server as a process: its socket, its signals, its end. Knows uvicorn; everything else knows ASGI only."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
from collections.abc import Generator

import psutil  # type: ignore[import-untyped]
import uvicorn
from starlette.types import ASGIApp

from cupola.errors import EngineError, UsageError
from cupola.server.http_head import BoundedProtocol
from cupola.server.lifecycle import Lifecycle
from cupola.server.shelf import ModelShelf

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WATCH_INTERVAL = 0.5  # seconds between looks at the engine
_LAST_WORDS = 2.0  # seconds between the engine's failure and the end of the process: time for /health to say it
_CLOSE_SECONDS = 2.0  # for models that are being loaded to come up, or for the step that runs to end
_BACKLOG = 2048

_LOG = logging.getLogger("cupola.server")


def listen(host: str, port: int) -> socket.socket:
    """Takes the address before any model is loaded; who connects early waits until the server is ready.

    Raises:
        UsageError: the address is in use, not allowed, or not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"The host `{host}` cannot be used: {error.strerror or error}.", hint="see --host") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = "in use by another program" if error.errno == errno.EADDRINUSE else str(error.strerror).lower()
        raise UsageError(f"Port {port} on {host} is {reason}.", hint="choose another one with --port") from error
    listener.setblocking(False)
    return listener


class Server(uvicorn.Server):
    """uvicorn, but a signal drains instead of closing the door at once.

    The listening socket stays open while the server drains, so that /ready can say no and new requests get an
    answer that sends them elsewhere.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, drain_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2,
            )
        )
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds
        self._draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles SIGTERM and Ctrl-C inside the event loop for as long as the server runs."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._draining is None:
            self._lifecycle.begin_drain()
            self._draining = asyncio.create_task(self._drain())
        else:
            self._stop()

    async def _drain(self) -> None:
        _LOG.info("draining: requests in flight have %g s to finish (signal again to stop now)", self._drain_seconds)
        if not await self._lifecycle.wait_idle(self._drain_seconds):
            self._stop()
        self.should_exit = True

    def _stop(self) -> None:
        ended = self._lifecycle.stop()
        if ended:
            _LOG.warning("stopping: %d requests in flight were ended", ended)
        self.should_exit = True


async def serve(app: ASGIApp, shelf: ModelShelf, lifecycle: Lifecycle, listener: socket.socket, drain: float) -> None:
    """Serves until a signal comes or the engine dies.

    Raises:
        EngineError: the engine died; /health has said so for a while.
    """
    # What is loaded stays: without it, a collection of the oldest generation holds up every stream for tens of ms.
    gc.collect()
    gc.freeze()
    server = Server(app, lifecycle, drain)
    shelf.start_timers()
    watching = asyncio.create_task(_watch_engines(shelf, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
        await asyncio.wait((watching,))
    if not watching.cancelled():
        watching.result()


async def close_in_time(shelf: ModelShelf) -> None:
    """Frees every model. One that is being compiled for minutes, in a process of its own, is given up."""
    closing = asyncio.create_task(shelf.close())
    done, _ = await asyncio.wait((closing,), timeout=_CLOSE_SECONDS)
    if not done:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
    await closing


async def _watch_engines(shelf: ModelShelf, server: Server) -> None:
    while (fault := shelf.fault()) is None:  # noqa: ASYNC110 (the engine thread has no asyncio event)
        await asyncio.sleep(_WATCH_INTERVAL)
    _LOG.critical("%s The server ends.", fault)
    await asyncio.sleep(_LAST_WORDS)
    server.should_exit = True
    raise EngineError(fault, hint="the log above says more")
