"""Compiled folders for tests, made by the command that users have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def compiled_folder(
    model: str,
    quant: str | None = None,
    config: Path | None = None,
    target: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Path:
    """Runs `cupola compile MODEL --cached --print-path [--quant QUANT] [--config CONFIG] [--target TARGET]`.

    Args:
        variables: of its environment, beside those of this process.

    Raises:
        RuntimeError: the command failed; the message holds what it said.
    """
    command = [sys.executable, "-m", "cupola", "compile", model, "--cached", "--print-path"]
    if quant is not None:
        command += ["--quant", quant]
    if config is not None:
        command += ["--config", str(config)]
    if target is not None:
        command += ["--target", target]
    environment = {**os.environ, **(variables or {})}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {result.returncode}:\n{result.stderr}")
    return Path(result.stdout.splitlines()[-1])
