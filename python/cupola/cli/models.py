"""`cupola models`: the architectures that Cupola compiles, as the registry has them."""

from __future__ import annotations

from typing import Annotated

import typer


def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the families of models that can be compiled. A checkpoint's config.json names its own as `model_type`.

    Examples: `cupola models`, `cupola models --json`
    """
    import json

    from cupola.cli.table import columns
    from cupola.models.registry import ARCHITECTURES

    if as_json:
        entries = [
            {"name": a.name, "model_types": list(a.model_types), "task": a.task, "models": a.models}
            for a in ARCHITECTURES
        ]
        typer.echo(json.dumps(entries, indent=2))
        return
    rows = [("model_type", "task", "models")]
    rows += [(", ".join(a.model_types), a.task, a.models) for a in ARCHITECTURES]
    typer.echo(columns(rows))
