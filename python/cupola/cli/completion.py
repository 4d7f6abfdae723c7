"""`cupola completion`: what a shell needs to complete the command line of Cupola."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

COMPLETION_VARIABLE = "_CUPOLA_COMPLETE"  # by it a shell asks


def completion_command(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell that shall complete.")],
) -> None:
    """Print the completion script of a shell.

    Examples: `source <(cupola completion bash)` in ~/.bashrc, `cupola completion zsh > ~/.zfunc/_cupola`,
    `cupola completion fish > ~/.config/fish/completions/cupola.fish`
    """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="cupola", complete_var=COMPLETION_VARIABLE, shell=shell))
