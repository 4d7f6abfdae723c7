#!/usr/bin/env python3
"""Writes what the documentation repeats of the code: the command line, the metrics, the README's table of models.

python scripts/gen_reference.py            write docs/cli.md, docs/metrics.md and the table in README.md
python scripts/gen_reference.py --check    fail when they differ from the files
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from cupola.cli.main import app
from cupola.models.registry import ARCHITECTURES
from cupola.server.metric_table import METRICS
from cupola.server.telemetry import ALIASES, CACHE_CONFIG, PREFIX, REJECTIONS, RESPONSES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
MADE = "<!-- Written by scripts/gen_reference.py; edit the code instead. -->"
MODELS_BEGIN = "<!-- models, written by scripts/gen_reference.py from the registry -->"
MODELS_END = "<!-- end of models -->"


def cli() -> str:
    """Every command with its options."""
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    lines = [
        "# The command line",
        "",
        MADE,
        "",
        "`cupola --version` prints the version; each command has `--help`.",
        "",
    ]
    for name, command in commands.items():
        lines += [f"## `cupola {name}`", "", *_help(command.help), "", *_table(_params(command)), ""]
    return "\n".join(lines)


def _help(text: str) -> Iterator[str]:
    yield from inspect.cleandoc(text).splitlines()


def _params(command: Any) -> Iterator[tuple[str, ...]]:
    yield ("argument, option", "default", "")
    for param in command.params:
        if param.param_type_name == "argument":
            name = param.metavar or param.name.upper()
        else:
            name = ", ".join((*param.opts, *param.secondary_opts))
        variable = f" (or the variable `{param.envvar}`)" if param.envvar else ""
        yield (f"`{name}`", _default(param.default), f"{param.help or ''}{variable}")


def _default(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`" if isinstance(value, str | int | float) else ""


def metrics() -> str:
    """Every metric with its labels."""
    lines = [
        "# Metrics",
        "",
        MADE,
        "",
        "`GET /metrics` publishes these, and `process_*` of the server's process. Every name begins with",
        f"`{PREFIX}`; with `--metrics-alias vllm` those that vLLM has are there under `{ALIASES['vllm']}`, too.",
        "",
        *_table(_metrics()),
        "",
    ]
    return "\n".join(lines)


def _metrics() -> Iterator[tuple[str, ...]]:
    yield ("name", "kind", "labels", "in vLLM", "")
    for spec in METRICS:
        labels = "`model_name`" + (f", `{spec.label}`" if spec.label else "")
        name = f"{spec.name}_total" if spec.kind == "counter" else spec.name
        yield (f"`{name}`", spec.kind, labels, "yes" if spec.in_vllm else "", spec.text)
    for (name, text, labels_of), kind, known in (
        (CACHE_CONFIG, "gauge", "yes"),
        (REJECTIONS, "counter", ""),
        (RESPONSES, "counter", ""),
    ):
        shown = f"{name}_total" if kind == "counter" else name
        yield (f"`{shown}`", kind, ", ".join(f"`{label}`" for label in labels_of), known, text)


def readme(text: str) -> str:
    """The README with its table of models as the registry has it."""
    head, _, rest = text.partition(MODELS_BEGIN)
    _, _, tail = rest.partition(MODELS_END)
    return "\n".join([f"{head}{MODELS_BEGIN}", *_table(_models()), f"{MODELS_END}{tail}"])


def _models() -> Iterator[tuple[str, ...]]:
    yield ("`model_type`", "for", "models")
    for architecture in ARCHITECTURES:
        types = ", ".join(f"`{kind}`" for kind in architecture.model_types)
        yield (types, "embeddings" if architecture.task == "embed" else "text", architecture.models)


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for index, row in enumerate(rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        if index == 0:
            yield "|---" * len(row) + "|"


def main() -> None:
    """Write them, or compare."""
    pages = (
        ("docs/cli.md", DOCS / "cli.md", cli()),
        ("docs/metrics.md", DOCS / "metrics.md", metrics()),
        ("README.md", README, readme(README.read_text(encoding="utf-8"))),
    )
    for name, file, text in pages:
        if "--check" not in sys.argv[1:]:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            sys.exit(f"{name} is not what the code says; hint: run scripts/gen_reference.py")


if __name__ == "__main__":
    main()
