"""Chat templates by name, and the files of a compiled folder that hold them.

A checkpoint may have one for each use. Hugging Face calls the usual one `default`, and that for conversations with
tools `tool_use`; these two are kept. Others (`rag`) are asked for by name in transformers, which no request can do
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cupola.weights.storage import write_text

DEFAULT, TOOL_USE = "default", "tool_use"
_FILES = {DEFAULT: "chat_template.jinja", TOOL_USE: "chat_template.tool_use.jinja"}


def named_templates(value: object) -> dict[str, str]:
    """What `chat_template` has in a JSON file: one template, or a list of named ones."""
    if isinstance(value, str):
        return {DEFAULT: value}
    named = {}
    for entry in value if isinstance(value, list) else ():
        match entry:
            case {"name": str(name), "template": str(template)}:
                named[name] = template
    return named


def write_templates(templates: Mapping[str, str], folder: Path) -> None:
    """Writes those that are kept. StorageError: `folder` cannot be written."""
    for name, file in _FILES.items():
        if templates.get(name):
            write_text(folder / file, templates[name])
