"""Text files of a Hugging Face folder, read with our own errors."""

from __future__ import annotations

import json
from pathlib import Path

from cupola.errors import ModelError
from cupola.weights.safetensors_files import HINT_AGAIN


def read_text(path: Path) -> str:
    """A UTF-8 file. ModelError: it is missing, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing", hint=HINT_AGAIN) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=HINT_AGAIN) from error


def read_json(path: Path) -> dict[str, object]:
    """A file that holds a JSON object. ModelError: it is missing, or holds none."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON: {error}", hint=HINT_AGAIN) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds {type(value).__name__} in place of an object", hint=HINT_AGAIN)
    return value


def read_json_if_there(path: Path) -> dict[str, object]:
    """As `read_json`, but nothing where there is no file."""
    return read_json(path) if path.is_file() else {}
