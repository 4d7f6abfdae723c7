"""Compiled models on first use: one folder for each checkpoint, configuration, target and version, made once."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cupola.compiler.config import CompileConfig
from cupola.compiler.progress import OnProgress
from cupola.compiler.target import CpuTarget
from cupola.errors import StorageError
from cupola.manifest import FILE_NAME, Stamp
from cupola.weights.cache import cache_root
from cupola.weights.checkpoint import Checkpoint

COMPILER_PACKAGES = ("compiler", "kernels", "models", "quantize", "weights")


def compile_cached(checkpoint: Checkpoint, config: CompileConfig, target: CpuTarget, on_progress: OnProgress) -> Path:
    """The compiled folder of a checkpoint; compiles when it is not in the cache.

    Several processes may ask at once: one compiles, the others wait for it.
    """
    key = _key(checkpoint, config, target)
    folder = cache_root() / "compiled" / f"{checkpoint.name}-{config.model.quant}-{key}"
    if not (folder / FILE_NAME).is_file():
        with _lock(folder.with_suffix(".lock")):
            if not (folder / FILE_NAME).is_file():
                # Imported here, because the compiler takes a second to load and a hit does not need it.
                from cupola.compiler.compile import compile_model

                compile_model(checkpoint, config, target, folder, on_progress)
    return folder


def _key(checkpoint: Checkpoint, config: CompileConfig, target: CpuTarget) -> str:
    digest = hashlib.sha256()
    parts = (
        checkpoint.fingerprint(),
        config.model_dump_json(),
        repr(target),
        Stamp.current().model_dump_json(),
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
def _lock(path: Path) -> Iterator[None]:
    """An exclusive lock between processes, given back even when the holder is killed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise StorageError(
            f"cannot write to the cache `{path.parent}`: {error.strerror}", hint="set CUPOLA_HOME to another folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
