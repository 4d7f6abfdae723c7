"""Which files of a repository on the hub make up a model: nothing else is fetched.

Owns the conventions of such repositories: one of safetensors may hold the same weights again in other formats, and one
of GGUF files holds the same model many times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cupola.errors import ModelError, UnsupportedError, UsageError
from cupola.weights.folder_text import FILE_PATTERNS
from cupola.weights.gguf_split import PART, is_later_part_name, part_names

_CONFIG, _INDEX, _SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_MORE = ("quantize_config.json", "modules.json", "sentence_bert_config.json", "*_Pooling/config.json")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_QUANTIZATION = re.compile(
    r"(?:^|[-._])(?P<tag>(?:UD-)?(?:I?Q\d\w*|TQ\d_\d|MXFP4\w*|NVFP4|BF16|F16|F32))$", re.IGNORECASE
)
_MOST_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Selection:
    """What to fetch; `gguf` is the file to open, None where the folder is the model."""

    files: tuple[str, ...]
    gguf: str | None = None


def select(names: Sequence[str], choice: str | None, repository: str) -> Selection:
    """The files of a model.

    Args:
        names: all files of the repository, with their folders.
        choice: which GGUF file: what its name ends with (`Q4_K_M`), or its name; None: the repository's only model.
        repository: to name in errors.

    Raises:
        UsageError: there are several models, and `choice` does not say which.
        ModelError: there is none, or none of that choice.
        UnsupportedError: there are only pickled weights.
    """
    files = sorted(name for name in names if _is_model(name))
    if choice is not None:
        return _chosen(files, choice, repository)
    weights = _weights(names)
    if _CONFIG in names and weights:
        texts = (name for name in names if any(fnmatchcase(name, pattern) for pattern in (*FILE_PATTERNS, *_MORE)))
        return Selection((_CONFIG, *weights, *texts))
    if len(files) == 1:
        return _parts(files[0])
    if files:
        raise UsageError(f"{repository} holds {len(files)} GGUF models", hint=_hint(files, repository))
    pickled = sorted(name for name in names if name.endswith(_PICKLED))
    if pickled:
        raise UnsupportedError(
            f"{repository} has no *.safetensors file, only {pickled[0]}, which is a pickle: reading runs what it says",
            hint="Look for a revision with safetensors (often refs/pr/1), or save them once with save_pretrained(...).",
        )
    raise ModelError(f"{repository} holds no model: neither safetensors with a {_CONFIG}, nor a GGUF file")


def _weights(names: Sequence[str]) -> list[str]:
    """The safetensors at the top: what the index speaks of, else the one file, else all but second copies."""
    if _INDEX in names:
        return [_INDEX, *(name for name in names if _SHARD.fullmatch(name))]
    if _SINGLE in names:
        return [_SINGLE]
    top = (name for name in names if "/" not in name and name.endswith(".safetensors"))
    return [name for name in top if not name.startswith("consolidated")]


def _chosen(files: Sequence[str], choice: str, repository: str) -> Selection:
    wanted = choice.lower()
    named = [name for name in files if wanted in (name.lower(), name.lower().rpartition("/")[2])]
    found = named or [name for name in files if (tag := _tag(name)) is not None and tag.lower() == wanted]
    if len(found) == 1:
        return _parts(found[0])
    if found:
        raise UsageError(f"{repository} holds {len(found)} GGUF models called {choice}", hint=_hint(found, repository))
    if not files:
        raise ModelError(f"{repository} holds no GGUF file", hint=f"Leave out :{choice}.")
    raise ModelError(f"{repository} holds no GGUF model {choice!r}", hint=_hint(files, repository))


def _is_model(name: str) -> bool:
    """A GGUF file that is a model by itself: no later part of one, and none that only reads images for it."""
    base = name.rpartition("/")[2].lower()
    return base.endswith(".gguf") and not is_later_part_name(base) and not base.startswith(("mmproj", "imatrix"))


def _tag(name: str) -> str | None:
    """The quantization at the end of a file's name."""
    base = name.rpartition("/")[2]
    part = PART.fullmatch(base)
    found = _QUANTIZATION.search(part["name"] if part else base[: -len(".gguf")])
    return found["tag"] if found else None


def _parts(first: str) -> Selection:
    folder, slash, base = first.rpartition("/")
    return Selection(tuple(f"{folder}{slash}{name}" for name in part_names(base)), first)


def _hint(files: Sequence[str], repository: str) -> str:
    """What can be asked for: a tag where it tells a file from the others, else its name."""
    tags = [_tag(name) for name in files]
    choices = [tag if tag and tags.count(tag) == 1 else name for name, tag in zip(files, tags, strict=True)]
    more = f" and {len(choices) - _MOST_SHOWN} more" if len(choices) > _MOST_SHOWN else ""
    return f"Name one as {repository}:{choices[0]}; there are {', '.join(choices[:_MOST_SHOWN])}{more}."
