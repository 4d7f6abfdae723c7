"""The `cupola` command: its subcommands, and the one place where errors become text and exit codes.

Exit codes: 0 success; 1 an error with a sentence and a hint on stderr; 2 a wrong command line; 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys

import typer

from cupola.cli.batch import batch_command
from cupola.cli.bench import bench_command
from cupola.cli.compile import compile_command
from cupola.cli.completion import COMPLETION_VARIABLE, completion_command
from cupola.cli.doctor import doctor_command
from cupola.cli.eval import eval_command
from cupola.cli.list import list_command
from cupola.cli.models import models_command
from cupola.cli.plain_help import PlainCommand, PlainGroup
from cupola.cli.pull import pull_command
from cupola.cli.rm import rm_command
from cupola.cli.run import run_command
from cupola.cli.serve import serve_command
from cupola.cli.show import show_command
from cupola.cli.targets import targets_command
from cupola.errors import CupolaError

app = typer.Typer(
    name="cupola",
    cls=PlainGroup,
    help="Compile a language model for this machine, and serve it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in (
    ("serve", serve_command),
    ("run", run_command),
    ("compile", compile_command),
    ("batch", batch_command),
    ("bench", bench_command),
    ("models", models_command),
    ("targets", targets_command),
    ("show", show_command),
    ("eval", eval_command),
    ("pull", pull_command),
    ("list", list_command),
    ("rm", rm_command),
    ("doctor", doctor_command),
    ("completion", completion_command),
):
    app.command(_name, cls=PlainCommand)(_command)


def main() -> None:
    """Run the command line; the entry point of the `cupola` script."""
    if COMPLETION_VARIABLE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()  # Typer's own options for it would do that
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
