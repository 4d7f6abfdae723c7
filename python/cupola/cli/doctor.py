"""`cupola doctor`: is everything there that Cupola needs?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cupola.cli.checks import Finding


def doctor_command(
    host: Annotated[str, typer.Option(help="Address that a server would take.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that a server would take.")] = 8000,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask whether the hub can be reached.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for a bug report.")] = False,
) -> None:
    """Check this machine and this installation. Ends with 1 when something keeps Cupola from working.

    Examples: `cupola doctor`, `cupola doctor --json`
    """
    import json
    from dataclasses import asdict

    from cupola.cli import checks

    findings = [check() for check in checks.CHECKS]
    findings.append(checks.port(host, port))
    if not offline:
        findings.append(checks.hub())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        typer.echo(_screen(findings))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _screen(findings: list[Finding]) -> str:
    """A line for each finding, and below it what to do."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"  {finding.state:<4}  {finding.name:<{width}}  {finding.text}")
        if finding.hint:
            lines.append(f"  {'':<4}  {'':<{width}}  hint: {finding.hint}")
    return "\n".join(lines)
