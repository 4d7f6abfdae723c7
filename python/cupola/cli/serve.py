"""`cupola serve`: takes the port, opens the model, prints the addresses, serves until a signal comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from cupola.cli import options
from cupola.engine.request import AdmissionPolicy

if TYPE_CHECKING:
    import socket

    from cupola.engine.async_engine import AsyncEngine
    from cupola.engine.options import EngineOptions
    from cupola.server.services import ServerSettings


class LogLevel(str, Enum):
    """How much the server writes to its log, on standard error."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one `cupola serve` was asked for."""

    model: str
    backend: str
    names: tuple[str, ...]
    host: str
    options: EngineOptions
    settings: ServerSettings


def serve_command(
    model: Annotated[
        str, typer.Argument(help="A compiled folder, or any name that `cupola compile` takes (compiled on first use).")
    ] = "smollm2",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 means all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name of the model in the API; repeat it for aliases.")
    ] = None,
    max_batch: options.MaxBatch = None,
    max_context: options.MaxContext = None,
    max_step_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of one step; fewer let running answers flow more evenly.")
    ] = None,
    max_queue: Annotated[int, typer.Option(min=1, help="Most requests that wait; beyond it the answer is 429.")] = 1024,
    kv_cache_memory: options.KvCacheMemory = None,
    num_threads: options.NumThreads = 0,
    bind_threads: options.BindThreads = False,
    spin_us: options.SpinUs = 1000,
    prefix_cache: Annotated[
        bool, typer.Option("--prefix-cache/--no-prefix-cache", help="Share what equal beginnings of prompts compute.")
    ] = True,
    admission: Annotated[AdmissionPolicy, typer.Option(help="When a waiting request may run.")] = "predicted",
    prefill_rows: Annotated[
        int, typer.Option(min=0, help="Most prompt tokens a step reads beside streams; 0 follows the clock.")
    ] = 0,
    quant: options.Quant = None,
    backend: options.Backend = "auto",
    api_key: Annotated[
        list[str] | None,
        typer.Option(help="Key that clients have to send; repeat it for several.", envvar="CUPOLA_API_KEY"),
    ] = None,
    responses_ttl: Annotated[
        float, typer.Option(min=0, help="Seconds after its last use for which a response of /v1/responses is kept.")
    ] = 24 * 3600.0,
    responses_entries: Annotated[int, typer.Option(min=0, help="Most responses that are kept.")] = 10_000,
    responses_memory: Annotated[str, typer.Option(help="Most memory for them.")] = "64MiB",
    timeout_drain: Annotated[
        float, typer.Option(min=0, help="Seconds that a stopping server gives to running requests.")
    ] = 30.0,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = LogLevel.INFO,
) -> None:
    """Serve a model: an OpenAI-compatible API and a chat page.

    Examples: `cupola serve`, `cupola serve ./my-model --port 8080`, `cupola serve --api-key secret --host 0.0.0.0`
    """
    import uvloop

    from cupola.engine.options import EngineOptions
    from cupola.server.process import listen
    from cupola.server.responses_store import StoreLimits
    from cupola.server.services import ServerSettings
    from cupola.sizes import parse_size

    plan = _Plan(
        model=model,
        backend=backend,
        names=tuple(served_model_name or ()),
        host=host,
        options=EngineOptions(
            max_batch=max_batch,
            max_context=max_context,
            max_step_tokens=max_step_tokens,
            max_queue=max_queue,
            kv_cache_memory=None if kv_cache_memory is None else parse_size(kv_cache_memory, "--kv-cache-memory"),
            num_threads=num_threads,
            bind_threads=bind_threads,
            spin_us=spin_us,
            prefix_cache=prefix_cache,
            admission=admission,
            prefill_rows=prefill_rows,
            quant=quant,
        ),
        settings=ServerSettings(
            api_keys=tuple(api_key or ()),
            drain_seconds=timeout_drain,
            responses=StoreLimits(responses_ttl, responses_entries, parse_size(responses_memory, "--responses-memory")),
        ),
    )
    _set_up_log(log_level)
    with listen(host, port) as listener:
        uvloop.run(_serve(plan, listener))


async def _serve(plan: _Plan, listener: socket.socket) -> None:
    import time

    from cupola.engine.async_engine import AsyncEngine
    from cupola.server.app import create_app
    from cupola.server.lifecycle import Lifecycle
    from cupola.server.process import serve
    from cupola.server.served_model import ServedModel
    from cupola.server.shelf import ModelShelf

    started = time.perf_counter()
    # In this thread: nothing else runs yet, and Ctrl-C works as everywhere.
    async with AsyncEngine(plan.model, backend=plan.backend, config=plan.options) as engine:
        model = ServedModel.of(engine, plan.names or _default_names(plan.model, engine.model_name))
        lifecycle = Lifecycle()
        shelf = ModelShelf.holding(model)
        app = create_app(shelf, plan.settings, lifecycle)
        address = _address(plan.host, listener.getsockname()[1])
        print(_banner(engine, model.names, address, time.perf_counter() - started), flush=True)
        await serve(app, shelf, lifecycle, listener, plan.settings.drain_seconds)


def _default_names(asked: str, own: str) -> tuple[str, ...]:
    """The name that the user typed, unless it is a path, and the model's own."""
    from pathlib import Path

    return (own,) if Path(asked).exists() else tuple(dict.fromkeys((asked, own)))


def _banner(engine: AsyncEngine, names: Sequence[str], address: str, seconds: float) -> str:
    """The first screen: what is served, with which sizes, and where."""
    from cupola import __version__

    config, manifest = engine.config, engine.manifest
    slots = config.num_pages * config.page_size
    lines = {
        "model": f"{', '.join(names)} ({manifest.architecture}, {manifest.scheme}, {engine.backend} backend)",
        "context": f"{config.max_context} tokens, up to {config.max_batch} requests at once",
        "KV cache": f"{config.num_pages} pages of {config.page_size} tokens = {slots} tokens",
        "chat page": f"{address}/",
        "API base": f"{address}/v1",
        "health": f"{address}/health",
        "metrics": f"{address}/metrics",
    }
    rows = [f"  {name:<10} {value}" for name, value in lines.items()]
    return "\n".join([f"Cupola {__version__} ready in {seconds:.1f} s", *rows])


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _set_up_log(level: LogLevel) -> None:
    import logging

    logging.basicConfig(
        level=level.value.upper(), format="%(asctime)s %(levelname)-8s %(message)s", datefmt="%H:%M:%S", force=True
    )
    # uvicorn's own lines about starting and stopping repeat what ours say better.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
