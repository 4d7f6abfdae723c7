"""The `cupola` command: its subcommands, and the one place where errors become text and exit codes.

Exit codes: 0 success; 1 an error with a sentence and a hint on stderr; 2 a wrong command line; 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cupola.cli.batch import batch_command
from cupola.cli.bench import bench_command
from cupola.cli.compile import compile_command
from cupola.cli.run import run_command
from cupola.cli.serve import serve_command
from cupola.errors import CupolaError

app = typer.Typer(
    name="cupola",
    help="Compile a language model for this machine, and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve_command)
app.command("run")(run_command)
app.command("compile")(compile_command)
app.command("batch")(batch_command)
app.command("bench")(bench_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from cupola import __version__

        typer.echo(f"cupola {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the entry point of the `cupola` script."""
    try:
        app(prog_name="cupola")
    except CupolaError as error:
        _report(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _report(error: CupolaError) -> None:
    """Tell the user, or the Cupola process that started this one."""
    from rich.console import Console
    from rich.text import Text

    from cupola.engine.error_relay import hand_over

    if hand_over(error):
        return
    console = Console(stderr=True)
    message = Text.assemble(("error", "bold red"), ": ", error.message.removesuffix("."))
    console.print(message, soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("\nhint", "bold cyan"), ": ", error.hint.removesuffix(".")), soft_wrap=True)
