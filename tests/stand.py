"""The server's application in this process, without a socket, on the scripted backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.options import EngineOptions
from cupola.server.app import create_app
from cupola.server.chat_style import ChatStyle
from cupola.server.lifecycle import Lifecycle
from cupola.server.served_model import ServedModel
from cupola.server.services import ServerSettings
from cupola.server.shelf import ModelShelf

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@dataclass(frozen=True)
class Stand:
    """A server without a socket: a client, and what stands behind it."""

    client: httpx.AsyncClient
    engine: AsyncEngine
    model: ServedModel
    lifecycle: Lifecycle


@asynccontextmanager
async def open_stand(
    script: str = "scripted",
    options: EngineOptions | None = None,
    settings: ServerSettings | None = None,
    reply_format: str = "auto",
    restyle: Callable[[ChatStyle], ChatStyle] = lambda style: style,
) -> AsyncIterator[Stand]:
    """Builds one; `script` is a name of the scripted model, whose replies are read in this format, or in that which
    `restyle` makes of it."""
    async with AsyncEngine(script, config=options or EngineOptions(num_pages=512)) as engine:
        found = ServedModel.of(engine, ["scripted", "alias"], reply_format)
        model = replace(found, style=restyle(found.style))
        lifecycle = Lifecycle()
        app = create_app(ModelShelf.holding(model), settings or ServerSettings(), lifecycle)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Stand(client, engine, model, lifecycle)


async def until(condition: Callable[[], bool]) -> None:
    """Lets everything else run until the condition holds; the time limit is the test's own."""
    while not condition():  # noqa: ASYNC110 (what is waited for happens in the engine's thread)
        await asyncio.sleep(0.001)
