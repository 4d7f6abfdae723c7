"""`cupola rm`: takes models out of the caches, never one that is in use."""

from __future__ import annotations

from typing import Annotated

import typer


def rm_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names that `cupola list` shows, or aliases.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove models from this machine. A checkpoint, one revision of it (org/name@revision), or a compiled model.

    What is being served, read or compiled stays. Examples: `cupola rm smollm2`, `cupola rm --yes org/name@v1.0`
    """
    import sys

    from cupola.cli import stored
    from cupola.errors import StorageError, UsageError
    from cupola.sizes import show_size

    found = []
    for name in dict.fromkeys(names):
        match = stored.find(name)
        if match is None:
            raise UsageError(f"there is no model `{name}` on this machine", hint="`cupola list` shows those there are")
        if match[0].in_use():
            raise StorageError(f"`{name}` is in use", hint="stop who serves or compiles it, and try again")
        found.append((name, *match))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked whether to remove that", hint="say --yes")
        for name, model, revision in found:
            size = "" if revision else f", {show_size(model.size)}"
            typer.echo(f"{name}: {model.path}{size}")
        typer.confirm("Remove?", abort=True)
    for name, model, revision in found:
        if not model.remove(revision):
            raise StorageError(f"`{name}` stays: somebody began to use it", hint="try again")
        typer.echo(f"Removed {name}", err=True)
