"""What a sentence-transformers folder says beside the network: pooling, normalization, and how much of a text it reads.

Owns the layout of such a folder: modules.json lists the steps, each with a folder of its own for its configuration. A
plain Hugging Face folder means what sentence-transformers takes it for: the mean of the tokens, not normalized.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.checkpoint import Checkpoint

MODULES = "modules.json"
SETTINGS = "sentence_bert_config.json"

# Where a length is written, the first that says it first.
_LENGTHS = ((SETTINGS, "max_seq_length"), ("tokenizer_config.json", "model_max_length"))
_MOST_TOKENS = 1 << 20  # tokenizers without a limit of their own write 1e30

# The names of ways of pooling: in a file of today, as a flag in one of yesterday, and ours.
_POOLINGS: Mapping[str, str] = MappingProxyType(
    {
        "mean": "mean",
        "cls": "cls",
        "lasttoken": "last",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
    }
)
_HINT_AGAIN = "Download the checkpoint again."


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """What is made of the network's rows.

    Args:
        pooling: mean, cls or last.
        normalized: the vector has length 1.
        max_tokens: of a text that the model was made for; None where nobody says.
        matryoshka: lengths that vectors may be cut to, where the model says so.
    """

    pooling: str = "mean"
    normalized: bool = False
    max_tokens: int | None = None
    matryoshka: tuple[int, ...] = ()


def read_settings(folder: Path) -> SentenceSettings:
    """The settings of a Hugging Face or sentence-transformers folder.

    Raises:
        ModelError: a file is malformed.
        UnsupportedError: a step, or a way of pooling, that Cupola does not know.
    """
    pooling, normalized = "mean", False
    for kind, path in _steps(folder):
        if kind == "Pooling":
            pooling = _pooling(_object(folder / path / "config.json"))
        elif kind == "Normalize":
            normalized = True
        elif kind not in ("Transformer", "Dropout"):
            raise UnsupportedError(
                f"{folder / MODULES} has a step {kind!r}", hint="Cupola knows Transformer, Pooling and Normalize."
            )
    lengths = [_object(folder / name).get(key) for name, key in _LENGTHS]
    known = [value for value in lengths if isinstance(value, int) and 0 < value <= _MOST_TOKENS]
    matryoshka = _object(folder / "config.json").get("matryoshka_dimensions")
    dimensions = tuple(int(d) for d in matryoshka) if isinstance(matryoshka, list) else ()
    return SentenceSettings(pooling, normalized, known[0] if known else None, dimensions)


def settings_of(checkpoint: Checkpoint) -> SentenceSettings:
    """The settings of a checkpoint: those of its folder, or what a GGUF file says. Raises as `read_settings`."""
    if checkpoint.path.is_dir():
        return read_settings(checkpoint.path)
    return SentenceSettings(str(checkpoint.config.get("pooling", "mean")), normalized=True)


def text_files(folder: Path) -> list[Path]:
    """The files of `folder` that only `read_settings` reads, those that are there."""
    names = [MODULES, SETTINGS, *(f"{path}/config.json" for _, path in _steps(folder) if path)]
    return [folder / name for name in names if (folder / name).is_file()]


def _steps(folder: Path) -> list[tuple[str, str]]:
    """(kind, folder) of each step."""
    path = folder / MODULES
    if not path.is_file():
        return []
    steps = _json(path)
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ModelError(f"{path} is no list of steps", hint=_HINT_AGAIN)
    return [(str(step.get("type", "")).rpartition(".")[2], str(step.get("path", ""))) for step in steps]


def _pooling(config: Mapping[str, object]) -> str:
    mode = config.get("pooling_mode")
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    chosen = [mode] if isinstance(mode, str) else flags
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        asked = " and ".join(key.removeprefix("pooling_mode_") for key in chosen) or "nothing"
        raise UnsupportedError(f"the checkpoint pools by {asked}", hint="Cupola knows one of mean, cls and lasttoken.")
    return _POOLINGS[chosen[0]]


def _object(path: Path) -> Mapping[str, object]:
    """A JSON object; empty where there is no file."""
    if not path.is_file():
        return {}
    value = _json(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object", hint=_HINT_AGAIN)
    return value


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_HINT_AGAIN) from error
