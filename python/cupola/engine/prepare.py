"""From a model's name to its compiled folder, compiling on first use.

The compiler runs as a process of its own: it is large, it imports TVM, and the engine must never depend on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cupola.engine.error_relay import ERROR_FD_VARIABLE, read_error
from cupola.engine.folder import is_compiled_folder
from cupola.errors import ModelError


def prepare(model: str, *, quant: str | None = None, compile_config: str | None = None) -> tuple[Path, str]:
    """The compiled folder of a model, and a sentence on where it comes from.

    Progress goes to stderr.

    Args:
        model: a compiled folder, or any name that `cupola compile` takes.
        quant: quantization scheme, for a model that is not compiled yet.
        compile_config: path of a TOML file, for a model that is not compiled yet.

    Raises:
        CupolaError: what the compiler said, as the class that it said it with.
    """
    folder = Path(model).expanduser()
    if is_compiled_folder(folder):
        return folder, f"`{model}` is a compiled folder"
    command = [sys.executable, "-m", "cupola", "compile", model, "--cached", "--print-path"]
    command += ["--quant", quant] if quant else []
    command += ["--config", compile_config] if compile_config else []
    lines = _run_compiler(command).splitlines()
    if not lines or not is_compiled_folder(Path(lines[-1])):
        raise ModelError(f"The compiler gave no folder for `{model}`", hint=f"Try `cupola compile {model}`.")
    return Path(lines[-1]), f"`{model}` was compiled to `{lines[-1]}`"


def _run_compiler(command: list[str]) -> str:
    """The standard output of the compiler's process; raises its error."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, encoding="utf-8") as error_file:
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                pass_fds=(write_end,),
                env={**os.environ, ERROR_FD_VARIABLE: str(write_end)},
                check=False,
            )
        finally:
            os.close(write_end)
        if done.returncode == 0:
            return done.stdout
        error = read_error(error_file.read())
    if error is None:
        cause = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        error = ModelError(f"The compiler ended with {cause}", hint="Its messages on stderr say more.")
    raise error
