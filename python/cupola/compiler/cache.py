"""Compiled models on first use: one folder for each checkpoint, configuration, target and version, made once."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cupola.compiler.calibration_text import text_of
from cupola.compiler.config import CompileConfig
from cupola.compiler.progress import OnProgress
from cupola.compiler.prune import prune, size_limit, touch
from cupola.compiler.target import Target
from cupola.errors import StorageError
from cupola.manifest import FILE_NAME, FORMAT_VERSION, Stamp
from cupola.models import registry
from cupola.weights.cache import cache_root
from cupola.weights.checkpoint import Checkpoint

COMPILER_PACKAGES = ("compiler", "kernels", "models", "quantize", "weights")


def compile_cached(
    checkpoint: Checkpoint, config: CompileConfig, targets: Sequence[Target], on_progress: OnProgress
) -> Path:
    """The compiled folder of a checkpoint; compiles when it is not in the cache, and keeps the cache within its bound.

    Several processes may ask at once: one compiles, the others wait for it.

    Raises:
        StorageError: the cache cannot be written.
        UsageError: $CUPOLA_CACHE_SIZE is not a size.
    """
    config = config.resolved(registry.task(checkpoint.config))
    root = compiled_root()
    folder = root / f"{checkpoint.name}-{config.scheme}-{_key(checkpoint, config, targets)}"
    try:
        with _lock(folder):
            found = (folder / FILE_NAME).is_file()
            if not found:
                # Imported here, because the compiler takes a second to load and a hit does not need it.
                from cupola.compiler.compile import compile_model

                compile_model(checkpoint, config, targets, folder, on_progress)
            touch(folder)
    except OSError as error:
        if (folder / FILE_NAME).is_file():
            return folder  # in a cache that is ours to read only
        raise StorageError(
            f"cannot write to the cache `{root}`: {error.strerror}", hint="set CUPOLA_HOME to another folder"
        ) from error
    if not found:
        prune(root, size_limit(root), try_lock)
    return folder


def compiled_root() -> Path:
    """The folder of all compiled folders. It need not exist yet."""
    return cache_root() / "compiled"


def _key(checkpoint: Checkpoint, config: CompileConfig, targets: Sequence[Target]) -> str:
    digest = hashlib.sha256()
    parts = (
        checkpoint.fingerprint(),
        config.model_dump_json(),
        repr(text_of(config.quantize)),
        repr(tuple(targets)),
        Stamp.current().model_dump_json(),
        str(FORMAT_VERSION),
        _sources(),
    )
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def _sources() -> str:
    """A hash over the compiler's own source, so that a changed kernel is never served from an old library."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for package in COMPILER_PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """The exclusive lock of a folder's name, between processes; given back even when the holder is killed."""
    with _lock_file(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """The exclusive lock of a folder's name without waiting; False where somebody else has it."""
    with _lock_file(folder) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


@contextmanager
def _lock_file(folder: Path) -> Iterator[int]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.with_name(f"{folder.name}.lock"), os.O_CREAT | os.O_RDWR, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
