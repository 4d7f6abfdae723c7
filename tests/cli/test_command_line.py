"""The surface of the command: help, version, exit codes, the form of an error."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import CUPOLA, cupola
from typer.testing import CliRunner

import cupola as package
from cupola.cli.main import app

COMMANDS = ("serve", "run", "compile", "batch", "bench", "models", "show", "pull", "list", "rm", "doctor", "completion")


def test_help_names_every_command() -> None:
    outcome = cupola("--help")
    assert outcome.code == 0
    assert all(re.search(rf"^\W*{command} ", outcome.out, re.MULTILINE) for command in COMMANDS)
    assert cupola("-h").out == outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], prog_name="cupola")
    assert result.exit_code == 0
    assert f"cupola {command}" in result.output


def test_without_a_command_it_shows_the_help() -> None:
    outcome = cupola()
    assert outcome.code == 2
    assert "Commands" in outcome.out + outcome.err


def test_the_version() -> None:
    assert cupola("--version").out == f"cupola {package.__version__}\n"


# Each takes longer to import than a help may take; the time itself depends on the machine.
HEAVY = {
    "asyncio",
    "fastapi",
    "gguf",
    "huggingface_hub",
    "jinja2",
    "numpy",
    "prometheus_client",
    "psutil",
    "pydantic",
    "rich",
    "starlette",
    "tokenizers",
    "tvm",
    "tvm_ffi",
    "urllib.request",
    "uvicorn",
    "uvloop",
}


@pytest.mark.parametrize("words", [("--help",), ("--version",), *((command, "--help") for command in COMMANDS)])
def test_a_help_loads_nothing_that_takes_long(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cupola", *words], capture_output=True, text=True, check=True
    )
    loaded = set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "cupola.cli.main" in loaded
    assert not HEAVY & loaded
    assert len(loaded) < 330, "something else that takes long"


def test_options_lie_in_groups() -> None:
    help_of_serve = cupola("serve", "--help").out
    heads = re.findall(r"^(\w+):$", help_of_serve, re.MULTILINE)
    assert heads == ["Arguments", "Options", "Address", "Access", "Models", "Engine", "Operation"]
    assert re.search(r"^Access:\n(  .*\n)*  --api-key-file", help_of_serve, re.MULTILINE)
    assert "Examples: `cupola serve`" in help_of_serve


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cupola se", ["serve"]),
        ("cupola serve --api", ["--api-key", "--api-key-file"]),
        ("cupola serve --log-format ", ["text", "json"]),
    ],
)
def test_shells_complete(line: str, offered: list[str]) -> None:
    asked = {"_CUPOLA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    assert cupola(env=asked).out.split() == offered


def test_bash_takes_its_completion_script() -> None:
    script = cupola("completion", "bash").out
    check = f"{script}\ncomplete -p cupola && declare -F _cupola_completion"
    done = subprocess.run(["bash", "-ec", check], capture_output=True, text=True, check=True)
    assert done.stdout == "complete -o default -F _cupola_completion cupola\n_cupola_completion\n"
    for shell in ("zsh", "fish"):
        assert "_CUPOLA_COMPLETE=complete_" + shell in cupola("completion", shell).out


@pytest.mark.parametrize(
    "arguments", [("fly",), ("run", "--nope"), ("run", "--max-tokens", "many"), ("batch", "only-one")]
)
def test_a_wrong_command_line_ends_with_2(arguments: tuple[str, ...]) -> None:
    outcome = cupola(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_a_wrong_option_value_ends_with_2_and_a_hint() -> None:
    outcome = cupola("run", "scripted:nope=1", "-p", "x")
    assert outcome.code == 2
    assert outcome.err.startswith("error: `nope=1` is not a setting of the scripted model\n\nhint: Write knob=number")


def test_an_error_is_a_sentence_and_a_hint_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    outcome = cupola("run", str(tmp_path), "-p", "x")
    assert outcome.code == 1
    assert outcome.out == ""
    error, blank, hint = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert "format version None" in error
    assert not error.endswith(".")
    assert blank == ""
    assert hint.startswith("hint: ")


def test_the_compilers_error_is_said_once() -> None:
    outcome = cupola("run", "no-such-folder/model.gguf", "-p", "x")
    assert outcome.code == 1
    assert outcome.err.count("error: ") == 1
    assert "no-such-folder/model.gguf" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_errors_are_coloured_on_a_terminal_unless_forbidden(no_color: str, coloured: bool) -> None:
    reader, terminal = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color}
    if not no_color:
        del env["NO_COLOR"]
    done = subprocess.run(
        [*CUPOLA, "run", "scripted:nope=1", "-p", "x"], stdin=subprocess.DEVNULL, stderr=terminal, env=env, check=False
    )
    os.close(terminal)
    text = os.read(reader, 4096).decode()
    os.close(reader)
    assert done.returncode == 2
    assert "not a setting" in text
    # NO_COLOR forbids colours, not bold type.
    assert bool(re.search(r"\x1b\[[\d;]*3\dm", text)) == coloured
