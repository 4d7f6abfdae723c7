"""`cupola batch`: answer a file of requests in the OpenAI batch format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupola.cli import options


def batch_command(
    input_file: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Requests, one a line.", show_default=False)],
    output_file: Annotated[
        Path, typer.Argument(metavar="OUT.jsonl", help="Answers, in the same order.", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A compiled folder, or any name that `cupola compile` takes (compiled on first use)."
        ),
    ] = "smollm2",
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name of the model in the requests; repeat it for aliases.")
    ] = None,
    max_batch: options.MaxBatch = None,
    max_context: options.MaxContext = None,
    kv_cache_memory: options.KvCacheMemory = None,
    num_threads: options.NumThreads = 0,
    bind_threads: options.BindThreads = False,
    spin_us: options.SpinUs = 1000,
    quant: options.Quant = None,
    backend: options.Backend = "auto",
) -> None:
    """Answer a file of requests in the OpenAI batch format.

    Each line is `{"custom_id": ..., "method": "POST", "url": "/v1/chat/completions", "body": {...}}`; a request that
    fails gets its error in its line. When the command was interrupted, the same command goes on where it ended.

    Example: `cupola batch requests.jsonl answers.jsonl --model smollm2`
    """
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from cupola.cli.batch_job import Summary, count_requests, run_batch
    from cupola.engine.options import EngineOptions
    from cupola.sizes import parse_size

    config = EngineOptions(
        max_batch=max_batch,
        max_context=max_context,
        kv_cache_memory=None if kv_cache_memory is None else parse_size(kv_cache_memory, "--kv-cache-memory"),
        num_threads=num_threads,
        bind_threads=bind_threads,
        spin_us=spin_us,
        quant=quant,
    )
    names = tuple(served_model_name or ())
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=count_requests(input_file))

        def on_progress(summary: Summary) -> None:
            bar.update(task, completed=summary.done)

        summary = asyncio.run(run_batch(input_file, output_file, model, names, backend, config, on_progress))
    console.print(summary.describe(output_file), soft_wrap=True, highlight=False, markup=False)
