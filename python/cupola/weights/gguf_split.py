"""A GGUF model that lies in several files, `NAME-00001-of-00003.gguf` and so on, as one.

Owns finding the parts and putting their tables of tensors together; the metadata is the first part's.
"""

from __future__ import annotations

import re
from pathlib import Path

from cupola.errors import ModelError
from cupola.weights.gguf_file import GgufFile

PART = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


def open_parts(path: Path) -> GgufFile:
    """The file at `path`, with the tensors of its other parts where it is the first of several.

    Raises:
        ModelError: a part is missing or inconsistent, or `path` is none but the first.
    """
    file = GgufFile(path)
    count = _number(file, "split.count")
    if count <= 1:
        return file
    match = PART.fullmatch(path.name)
    if match is None or int(match["count"]) != count or _number(file, "split.no") != int(match["number"]) - 1:
        raise ModelError(
            f"{path} is one of {count} parts of a split GGUF model, but not called so",
            hint=f"The parts must be called NAME-00001-of-{count:05d}.gguf and so on.",
        )
    names = part_names(path.name)
    if path.name != names[0]:
        raise ModelError(f"{path} is not the first part of its model", hint=f"Name {path.with_name(names[0])}.")
    for name in names[1:]:
        part = GgufFile(path.with_name(name))
        twice = sorted(part.tensors.keys() & file.tensors.keys())
        if twice or _number(part, "split.count") != count:
            what = f"has tensor {twice[0]} again" if twice else f"is not one of its {count} parts"
            raise ModelError(f"{part.path} does not belong to {path}: it {what}", hint="Download the parts again.")
        file.tensors |= part.tensors
    expected = _number(file, "split.tensors.count")
    if expected != len(file.tensors):
        raise ModelError(
            f"{path} and its other parts have {len(file.tensors)} tensors where {expected} are announced",
            hint="Download the parts again.",
        )
    return file


def is_later_part_name(name: str) -> bool:
    """Whether a file of that name is a part of a split model, and not its first."""
    match = PART.fullmatch(name)
    return match is not None and int(match["number"]) > 1


def part_names(name: str) -> list[str]:
    """The files of the model that the file of that name belongs to, in order; itself where it is whole."""
    match = PART.fullmatch(name)
    if match is None:
        return [name]
    suffix = name[-len(".gguf") :]
    return [f"{match['name']}-{number:05d}-of-{match['count']}{suffix}" for number in range(1, int(match["count"]) + 1)]


def _number(file: GgufFile, key: str) -> int:
    value = file.metadata.get(key, 0)
    return value if isinstance(value, int) else 0
