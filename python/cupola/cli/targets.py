"""`cupola targets`: what models can be compiled for, what this machine can compile, and what it can run."""

from __future__ import annotations

import typer


def targets_command() -> None:
    """List what models can be compiled for. Says what compiles on this machine, what runs on it, and why not."""
    from cupola.cli.table import columns
    from cupola.compiler.detect import choose
    from cupola.compiler.support import every_target, obstacle
    from cupola.engine.choice import Machine
    from cupola.engine.choice import obstacle as run_obstacle
    from cupola.manifest import Library

    machine = Machine.here()
    rows = [("TARGET", "COMPILES HERE", "RUNS HERE")]
    for target in every_target():
        library = Library(file="it", target=target.describe())
        rows.append((target.name, obstacle(target) or "yes", run_obstacle(library, machine) or "yes"))
    found, reason = choose(machine.devices)
    typer.echo(f"{columns(rows, indent='')}\n\n--target auto is {found} here: {reason}")
