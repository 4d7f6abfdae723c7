"""Which models are in use: a shared lock on one file of each, for as long as somebody reads the model.

The engine holds the manifest of what it serves, a reader the first file of its checkpoint; what is held is not removed,
by the bound of the cache or by `cupola rm`. The lock ends with its process, whatever the end is. Where a file system
knows no locks, nothing is held, and nothing is removed either.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cupola.manifest import FILE_NAME


def hold(folder: Path, owner: object) -> None:
    """Keeps a compiled folder from being removed, for as long as `owner` lives."""
    hold_file(folder / FILE_NAME, owner)


def hold_file(path: Path, owner: object) -> None:
    """Keeps the model that this file belongs to from being removed, for as long as `owner` lives."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # what cannot be read cannot be used; its user will say so
    weakref.finalize(owner, os.close, descriptor)
    _lock(descriptor, fcntl.LOCK_SH)


@contextmanager
def nobody_else(folder: Path) -> Iterator[bool]:
    """Whether nobody holds the compiled folder; if so, nobody can while the block runs.

    Raises:
        OSError: it has no manifest that can be read.
    """
    with nobody_else_file(folder / FILE_NAME) as free:
        yield free


@contextmanager
def nobody_else_file(path: Path) -> Iterator[bool]:
    """The same for a file that `hold_file` was given."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind)
    except OSError:
        return False
    return True
