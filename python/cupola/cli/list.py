"""`cupola list`: the models that lie on this machine, with their sizes and when each was used last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cupola.cli.stored import Stored


def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the models on this machine. Checkpoints that were fetched, and what was compiled of them.

    Examples: `cupola list`, `cupola list --json`
    """
    import json

    from cupola.cli.stored import stored

    models = stored()
    if as_json:
        typer.echo(json.dumps([_entry(model) for model in models], indent=2))
    elif models:
        typer.echo(_screen(models))
    else:
        typer.echo("No models are here yet; `cupola pull` fetches one.", err=True)


def _entry(model: Stored) -> dict[str, object]:
    return {
        "name": model.name,
        "kind": model.kind,
        "path": str(model.path),
        "bytes": model.size,
        "last_used": int(model.used),
        "in_use": model.in_use(),
        "revisions": list(model.revisions),
    }


def _screen(models: list[Stored]) -> str:
    from datetime import datetime

    from cupola.cli.table import columns
    from cupola.sizes import show_size

    rows = [("name", "kind", "size", "last used", "")]
    for model in models:
        used = datetime.fromtimestamp(model.used).strftime("%Y-%m-%d %H:%M")
        rows.append((model.name, model.kind, show_size(model.size), used, "in use" if model.in_use() else ""))
    return f"{columns(rows)}\n  {len(models)} models, {show_size(sum(model.size for model in models))}"
