"""`cupola bench`: measure a server, an engine in this process, or two of them against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cupola.cli import options

if TYPE_CHECKING:
    from cupola.bench.open_targets import Choice
    from cupola.bench.report import Report


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one `cupola bench` was asked for."""

    choices: tuple[Choice, ...]
    groups: tuple[str, ...]
    rounds: int
    seed: int
    threads: int
    quiet: float


def bench_command(
    model: Annotated[
        str, typer.Argument(help="Measured in process, unless --url or --spawn names a server instead.")
    ] = "smollm2",
    url: Annotated[str | None, typer.Option(help="Measure the server that listens here.")] = None,
    spawn: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Measure the server that this starts; `{port}` is its port.")
    ] = None,
    vs: Annotated[str | None, typer.Option(metavar="URL", help="Compare with the server that listens here.")] = None,
    vs_spawn: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Compare with the server that this starts.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="One of decode, busy, prefill, clients, prefix, intrusion, start, memory; repeat it for several."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the random prompts.")] = 0,
    quiet: Annotated[
        float | None,
        typer.Option(min=0, metavar="CORES", help="Measure again, a few times, while others kept more cores busy."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here.")] = None,
    pid: Annotated[int | None, typer.Option(help="The process behind --url, for its memory.")] = None,
    vs_pid: Annotated[int | None, typer.Option(help="The process behind --vs.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="What that server serves (a compiled folder, a file), for what a token costs.")
    ] = None,
    vs_weights: Annotated[Path | None, typer.Option(help="The same of the other server.")] = None,
    name: Annotated[str | None, typer.Option(help="What the report calls that server.")] = None,
    vs_name: Annotated[str | None, typer.Option(help="What it calls the other server.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Key to send to both servers.", envvar="CUPOLA_BENCH_API_KEY")
    ] = None,
    num_threads: options.NumThreads = 0,
    bind_threads: options.BindThreads = False,
    spin_us: options.SpinUs = 1000,
    max_batch: options.MaxBatch = None,
    max_context: options.MaxContext = None,
    kv_cache_memory: options.KvCacheMemory = None,
    quant: options.Quant = None,
    backend: options.Backend = "auto",
) -> None:
    """Measure speed and memory. Decoding, prompts, many clients, shared prefixes, long prompts among streams.

    A server that the command starts itself is frozen (SIGSTOP) while the other one is measured.

    Examples: `cupola bench`, `cupola bench --url http://127.0.0.1:8000 --only decode`,
    `cupola bench --spawn "cupola serve --port {port}" --vs http://127.0.0.1:8080 --json figures.json`
    """
    import asyncio
    import signal

    import uvloop
    from rich.console import Console

    from cupola.bench.open_targets import EngineChoice, ServerChoice
    from cupola.engine.options import EngineOptions
    from cupola.errors import UsageError
    from cupola.sizes import parse_size

    if (url and spawn) or (vs and vs_spawn):
        raise UsageError("A server is named by its URL or by its command, not by both")
    choices: list[Choice] = []
    if url or spawn:
        choices.append(ServerChoice(url, spawn, name, pid=pid, weights=weights, api_key=api_key))
    else:
        config = EngineOptions(
            max_batch=max_batch,
            max_context=max_context,
            kv_cache_memory=None if kv_cache_memory is None else parse_size(kv_cache_memory, "--kv-cache-memory"),
            num_threads=num_threads,
            bind_threads=bind_threads,
            spin_us=spin_us,
            quant=quant,
        )
        choices.append(EngineChoice(model, backend, config))
    if vs or vs_spawn:
        choices.append(ServerChoice(vs, vs_spawn, vs_name, pid=vs_pid, weights=vs_weights, api_key=api_key))
    limit = float("inf") if quiet is None else quiet
    wanted = _Wanted(tuple(choices), tuple(only or ()), rounds, seed, num_threads, limit)
    try:
        report = uvloop.run(_bench(wanted))
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    Console().print(report.table())
    if json_file is not None:
        report.save(json_file)


async def _bench(wanted: _Wanted) -> Report:
    """Open the targets, show how far it is, and measure; SIGTERM cancels it, so that no server is left behind."""
    import asyncio
    import signal
    from contextlib import AsyncExitStack

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from cupola.bench.interleave import Plan, measure
    from cupola.bench.open_targets import open_target
    from cupola.bench.workloads import check_groups, choose_workloads

    check_groups(wanted.groups)
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    async with AsyncExitStack() as stack:
        targets = tuple([await open_target(choice, stack) for choice in wanted.choices])
        workloads = choose_workloads(wanted.groups, targets)
        bar = stack.enter_context(
            Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal)
        )
        task = bar.add_task("", total=wanted.rounds * len(workloads) * len(targets))

        def on_measured(title: str) -> None:
            bar.update(task, advance=1, description=title)
            bar.refresh()  # between measurements only: no thread of the bar's own runs beside them

        plan = Plan(targets, workloads, wanted.rounds, wanted.seed, wanted.threads, wanted.quiet)
        return await measure(plan, on_measured)
