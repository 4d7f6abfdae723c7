"""A server as a target: one that runs already, or one that the benchmark starts."""

from __future__ import annotations

import asyncio
import time

from cupola.bench.client import Client
from cupola.bench.sample import Sample
from cupola.bench.spawned import SpawnedServer, resident_bytes
from cupola.bench.target import Start, TokenCost
from cupola.errors import EngineError, UsageError

_POLL = 0.005  # seconds between looks at a server that starts
_START_SECONDS = 900.0  # a model may have to be compiled first


class ServerTarget:
    """Requests go to `client`.

    Args:
        name: how the report calls it.
        client: talks with the server; `connect` was called.
        pid: the server's process, if known.
        server: the process, if it is the benchmark's own; only such a one is frozen and started again.
        cost: of a token, if known.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        *,
        pid: int | None = None,
        server: SpawnedServer | None = None,
        cost: TokenCost | None = None,
    ) -> None:
        self.name = name
        self.pid = server.pid if server is not None else pid
        self.cost = cost
        self._client = client
        self._server = server

    @property
    def can_start(self) -> bool:
        """Only what has a command can be started."""
        return self._server is not None

    async def generate(self, prompt: str, max_tokens: int, *, reuse_prefix: bool = False) -> Sample:
        """See `Target.generate`."""
        try:
            return await self._client.complete(prompt, max_tokens, reuse_prefix=reuse_prefix)
        except EngineError:
            if self._server is not None:
                self._server.check_alive()  # its own last words say more than a closed connection
            raise

    async def measure_start(self, prompt: str) -> Start:
        """See `Target.measure_start`."""
        if self._server is None:
            raise UsageError(f"{self.name} cannot be started, because its command is not known")
        begin = time.perf_counter()
        with SpawnedServer(self._server.command) as server:
            sample = await first_answer(server, Client(server.url, self._client.model), prompt)
            return Start(sample.arrivals[0] - begin, resident_bytes(server.pid))

    def suspend(self) -> None:
        """Freeze the server, if it is the benchmark's own."""
        if self._server is not None:
            self._server.suspend()

    def resume(self) -> None:
        """Undo `suspend`."""
        if self._server is not None:
            self._server.resume()


async def first_answer(server: SpawnedServer, client: Client, prompt: str) -> Sample:
    """Ask until the server answers, and give its first answer, one token long.

    Raises:
        EngineError: it ended, or does not answer at all.
    """
    deadline = time.perf_counter() + _START_SECONDS
    while time.perf_counter() < deadline:
        server.check_alive()
        sample = await client.try_complete(prompt, 1)
        if sample is not None:
            return sample
        await asyncio.sleep(_POLL)
    raise EngineError(f"The server `{server.command}` was not ready after {_START_SECONDS:g} s")
