"""`cupola serve`: takes the port, opens the models, prints the addresses, serves until a signal comes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cupola.cli import options
from cupola.cli import serve_options as own

if TYPE_CHECKING:
    import socket

    from cupola.engine.options import EngineOptions
    from cupola.server.opening import ModelSource
    from cupola.server.services import ServerSettings
    from cupola.server.shelf import ModelShelf
    from cupola.server.slot import ModelSlot

DEFAULT_MODEL = "smollm2"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one `cupola serve` was asked for."""

    sources: tuple[ModelSource, ...]
    backend: str
    host: str
    lazy: bool
    idle_unload: float | None
    otel: bool
    reply_format: str | None
    options: EngineOptions
    settings: ServerSettings


def serve_command(
    models: own.Models = None,
    host: own.Host = "127.0.0.1",
    port: own.Port = 8000,
    api_key: own.ApiKey = None,
    api_key_file: own.ApiKeyFile = None,
    cors_origin: own.CorsOrigin = None,
    max_body_size: own.MaxBodySize = "16MiB",
    served_model_name: own.ServedModelName = None,
    lazy: own.Lazy = False,
    idle_unload: own.IdleUnload = None,
    quant: options.Quant = None,
    backend: options.Backend = "auto",
    max_batch: options.MaxBatch = None,
    max_context: options.MaxContext = None,
    max_step_tokens: own.MaxStepTokens = None,
    max_queue: own.MaxQueue = 1024,
    kv_cache_memory: options.KvCacheMemory = None,
    num_threads: options.NumThreads = 0,
    bind_threads: options.BindThreads = False,
    spin_us: options.SpinUs = 1000,
    prefix_cache: own.PrefixCache = True,
    admission: own.Admission = "predicted",
    prefill_rows: own.PrefillRows = 0,
    record_steps: own.RecordSteps = True,
    reply_format: own.ReplyFormat = None,
    responses_ttl: own.ResponsesTtl = 24 * 3600.0,
    responses_entries: own.ResponsesEntries = 10_000,
    responses_memory: own.ResponsesMemory = "64MiB",
    timeout_drain: own.TimeoutDrain = 30.0,
    log_level: own.Level = "info",
    log_format: own.Format = "text",
    metrics_alias: own.Alias = None,
    otel: own.OTel = False,
) -> None:
    """Serve models: an OpenAI-compatible API and a chat page.

    Examples: `cupola serve`, `cupola serve ./my-model --port 8080`, `cupola serve --api-key secret --host 0.0.0.0`,
    `cupola serve chat=smollm2 big=./big-model --lazy --idle-unload 600`
    """
    import uvloop

    from cupola.engine.options import EngineOptions
    from cupola.server.logs import set_up
    from cupola.server.opening import model_sources
    from cupola.server.process import listen
    from cupola.server.responses_store import StoreLimits
    from cupola.server.services import ServerSettings
    from cupola.sizes import parse_size

    plan = _Plan(
        sources=model_sources(models or [DEFAULT_MODEL], served_model_name or ()),
        backend=backend,
        host=host,
        lazy=lazy,
        idle_unload=idle_unload,
        otel=otel,
        reply_format=reply_format,
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
            record_steps=record_steps,
            quant=quant,
        ),
        settings=ServerSettings(
            api_keys=tuple(api_key or ()),
            api_key_file=api_key_file,
            cors_origins=tuple(cors_origin or ()),
            max_body_bytes=parse_size(max_body_size, "--max-body-size"),
            drain_seconds=timeout_drain,
            metrics_aliases=() if metrics_alias is None else (metrics_alias,),
            responses=StoreLimits(responses_ttl, responses_entries, parse_size(responses_memory, "--responses-memory")),
        ),
    )
    set_up(log_level, log_format)
    with listen(host, port) as listener:
        uvloop.run(_serve(plan, listener))


async def _serve(plan: _Plan, listener: socket.socket) -> None:
    import time

    from cupola.server.app import create_app
    from cupola.server.lifecycle import Lifecycle
    from cupola.server.process import close_in_time, serve
    from cupola.server.shelf import ModelShelf
    from cupola.server.tracing import open_tracing

    started = time.perf_counter()
    tracer = open_tracing() if plan.otel else None
    shelf = ModelShelf([_slot(plan, source) for source in plan.sources])
    lifecycle = Lifecycle()
    app = create_app(shelf, plan.settings, lifecycle, tracer)
    try:
        if not plan.lazy:
            shelf.load_now()  # in this thread: nothing else runs yet, and Ctrl-C works as everywhere
        address = _address(plan.host, listener.getsockname()[1])
        print(_banner(shelf, address, time.perf_counter() - started), flush=True)
        await serve(app, shelf, lifecycle, listener, plan.settings.drain_seconds)
    finally:
        await close_in_time(shelf)
        if tracer is not None:
            tracer.shutdown()


def _slot(plan: _Plan, source: ModelSource) -> ModelSlot:
    from cupola.server.opening import open_served
    from cupola.server.slot import ModelSlot, SlotLimits

    opener = partial(open_served, source, plan.backend, plan.options, plan.reply_format)
    return ModelSlot(source.early_names(), opener, SlotLimits(plan.idle_unload, plan.options.max_queue))


def _banner(shelf: ModelShelf, address: str, seconds: float) -> str:
    """The first screen: what is served, with which sizes, and where."""
    from cupola import __version__
    from cupola.cli.table import columns

    head = ("model", "kind", "architecture", "quant", "context", "KV cache", "at once", "")
    rows = [head, *(_row(slot) for slot in shelf.slots)]
    places = {"chat page": "/", "API base": "/v1", "API document": "/openapi.json", "health": "/health"}
    places["metrics"] = "/metrics"
    urls = [("", ""), *((name, f"{address}{path}") for name, path in places.items())]
    return "\n".join(
        [f"Cupola {__version__} ready in {seconds:.1f} s", "", columns(rows), "", columns(urls).lstrip("\n")]
    )


def _row(slot: ModelSlot) -> tuple[str, ...]:
    names = ", ".join(slot.names)
    if slot.served is None:
        return (names, "", "", "", "", "", "", "loaded on demand")
    is_ = slot.served.summary
    note = "" if is_.backend == "compiled" else f"{is_.backend} backend"
    return (names, is_.kind, is_.architecture, is_.quant, f"{is_.context}", is_.cache, f"{is_.concurrency}", note)


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
