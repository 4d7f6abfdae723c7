"""Runs the `cupola` command as a user does: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

CUPOLA = (sys.executable, "-m", "cupola")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def cupola(*arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Outcome:
    """Run `cupola ARGUMENTS` to its end."""
    done = subprocess.run(
        [*CUPOLA, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "TERM": "dumb", **(env or {})},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
