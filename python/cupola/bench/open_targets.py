"""From what a user named (a model, a URL, a command) to targets that are open; all are closed together."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from cupola.bench.client import Client
from cupola.bench.engine_target import EngineTarget, cost_of
from cupola.bench.server_target import ServerTarget, first_answer
from cupola.bench.spawned import SpawnedServer
from cupola.bench.target import Target, TokenCost
from cupola.engine.async_engine import AsyncEngine
from cupola.engine.folder import is_compiled_folder, read_manifest
from cupola.engine.options import EngineOptions
from cupola.errors import UsageError


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """A server to measure: one of `url` and `command`.

    Args:
        url: where it listens.
        command: how to start it, with `{port}` for the port.
        name: how the report calls it; None takes the URL, or the command's first word.
        pid: the process behind `url`, for its memory.
        weights: a compiled folder or a checkpoint file, for the cost of a token.
        api_key: a bearer token.
    """

    url: str | None = None
    command: str | None = None
    name: str | None = None
    pid: int | None = None
    weights: Path | None = None
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine in this process."""

    model: str
    backend: str = "auto"
    options: EngineOptions = field(default_factory=EngineOptions)


Choice = ServerChoice | EngineChoice


async def open_target(choice: Choice, stack: AsyncExitStack) -> Target:
    """Open what was chosen; `stack` closes it.

    Raises:
        CupolaError: it cannot be opened, reached or started.
    """
    if isinstance(choice, EngineChoice):
        engine = await stack.enter_async_context(
            await AsyncEngine.open(choice.model, backend=choice.backend, config=choice.options)
        )
        return EngineTarget(f"{engine.model_name} in process", engine)
    cost = None if choice.weights is None else cost_of_path(choice.weights)
    if choice.command is not None:
        server = stack.enter_context(SpawnedServer(choice.command))
        client = Client(server.url, api_key=choice.api_key)
        await first_answer(server, client, "Hello")
        await client.connect()
        name = choice.name or Path(choice.command.split()[0]).name
        return ServerTarget(name, client, server=server, cost=cost)
    if choice.url is None:
        raise UsageError("Neither the URL nor the command of a server is given")
    client = Client(choice.url, api_key=choice.api_key)
    await client.connect()
    return ServerTarget(choice.name or choice.url, client, pid=choice.pid, cost=cost)


def cost_of_path(path: Path) -> TokenCost:
    """What a token costs by a compiled folder's manifest, or by the size of a checkpoint file.

    Raises:
        UsageError: there is nothing of that name.
        ModelError: the folder's manifest cannot be read.
    """
    if is_compiled_folder(path):
        return cost_of(read_manifest(path))
    if not path.is_file():
        raise UsageError(f"`{path}` is neither a compiled folder nor a file", hint="Name what the server serves.")
    return TokenCost(path.stat().st_size)
