"""How a help looks: plain text with options in groups. And what makes it come quickly.

Typer's own look needs rich, and the value of any option of the root needs pydantic: each takes longer to import than
all the rest. So groups are written here, and `--version` is looked for without being an option of Typer's.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cupola import __version__

Rows = list[tuple[str, str]]

_FIRST = ("Arguments", "Options")
_VERSION = ("--version", "Print the version and exit.")


class PlainCommand(TyperCommand):
    """A command whose options lie under the heads that `rich_help_panel` names."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        _write(_groups(self, ctx), formatter)


class PlainGroup(TyperGroup):
    """The root: its commands, and `--version`."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        groups = _groups(self, ctx)
        groups["Options"] = [_VERSION, *groups.get("Options", [])]
        _write(groups, formatter)
        self.format_commands(ctx, formatter)

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args[:1] == ["--version"]:
            typer.echo(f"cupola {__version__}")
            ctx.exit()
        if args[:1] in ([], ["-h"], ["--help"]):
            return super().parse_args(ctx, args)
        # A command follows, and with it its own `--help`: the root's would be an option of Typer's with a value, too.
        names, ctx.help_option_names = ctx.help_option_names, []
        try:
            return super().parse_args(ctx, args)
        finally:
            ctx.help_option_names = names


def _groups(command: TyperCommand | TyperGroup, ctx: typer.Context) -> dict[str, Rows]:
    groups: dict[str, Rows] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            kind = "Arguments" if param.param_type_name == "argument" else "Options"
            groups.setdefault(getattr(param, "rich_help_panel", None) or kind, []).append(record)
    return groups


def _write(groups: dict[str, Rows], formatter: Any) -> None:
    for head, rows in sorted(groups.items(), key=lambda group: group[0] not in _FIRST):
        with formatter.section(head):
            formatter.write_dl(rows)
