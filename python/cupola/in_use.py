"""Which compiled folders are in use: a shared lock on the manifest, for as long as somebody maps the files beside it.

The engine holds what it serves; the cache of compiled models removes only what nobody holds. The lock ends with its
process, whatever the end is. Where a file system knows no locks, nothing is held, and nothing is removed either.
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
    """Keeps a compiled folder from being removed by the cache, for as long as `owner` lives."""
    try:
        descriptor = os.open(folder / FILE_NAME, os.O_RDONLY)
    except OSError:
        return  # what cannot be read cannot be used; its user will say so
    weakref.finalize(owner, os.close, descriptor)
    _lock(descriptor, fcntl.LOCK_SH)


@contextmanager
def nobody_else(folder: Path) -> Iterator[bool]:
    """Whether nobody holds the folder; if so, nobody can while the block runs.

    Raises:
        OSError: it has no manifest that can be read.
    """
    descriptor = os.open(folder / FILE_NAME, os.O_RDONLY)
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
