"""The bound of the cache of compiled models: the least recently used are removed, never one that is in use.

It knows what lies in the folder of the cache and when each was used last, and nothing of what compiled models hold.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cupola.in_use import nobody_else
from cupola.manifest import FILE_NAME
from cupola.sizes import parse_size

SIZE_VARIABLE = "CUPOLA_CACHE_SIZE"
# Who asked for a model may still be on the way to opening it: the compiler's process has ended, the server's begins.
GRACE_SECONDS = 3600.0
_ABANDONED_SECONDS = 24 * 3600.0  # a work folder this old is of a compiler that was killed
_DISK_SHARE = 4

TryLock = Callable[[Path], AbstractContextManager[bool]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A compiled folder: when it was used last (Unix seconds), and its bytes."""

    folder: Path
    used: float
    size: int


def size_limit(root: Path) -> int:
    """Most bytes of compiled models: $CUPOLA_CACHE_SIZE, else a quarter of the disk that `root` lies on.

    Raises:
        UsageError: the variable is not a size.
    """
    if text := os.environ.get(SIZE_VARIABLE):
        return parse_size(text, SIZE_VARIABLE)
    return shutil.disk_usage(root).total // _DISK_SHARE


def touch(folder: Path) -> None:
    """Notes that a compiled folder is used now."""
    os.utime(folder / FILE_NAME)


def prune(root: Path, limit: int, try_lock: TryLock) -> None:
    """Removes compiled folders in `root`, the least recently used first, until the others have at most `limit` bytes.

    What was used within the last hour, is held (`cupola.in_use`) or is being compiled stays, whatever its size.

    Args:
        try_lock: the lock under which a folder of this name is made and looked up; gives False where it is taken.
    """
    now = time.time()
    _remove_abandoned(root, now)
    oldest_first = sorted(entries(root), key=lambda entry: entry.used)
    excess = sum(entry.size for entry in oldest_first) - limit
    for entry in oldest_first:
        if excess <= 0 or entry.used > now - GRACE_SECONDS:
            return
        if remove(entry, try_lock):
            excess -= entry.size


def remove(entry: Entry, try_lock: TryLock) -> bool:
    """Removes a compiled folder, unless it is held, is being compiled, or was used since it was listed."""
    with try_lock(entry.folder) as locked:
        return locked and _remove_unused(entry)


def entries(root: Path) -> list[Entry]:
    """The compiled folders in `root`."""
    found = []
    for folder in root.iterdir():
        if folder.name.startswith("."):
            continue
        try:
            used = (folder / FILE_NAME).stat().st_mtime
            found.append(Entry(folder, used, sum(path.stat().st_size for path in folder.iterdir())))
        except (FileNotFoundError, NotADirectoryError):
            continue  # a lock, or what another process has just removed
    return found


def _remove_unused(entry: Entry) -> bool:
    """Removes a folder whose lock is held, unless it was used since it was listed."""
    try:
        with nobody_else(entry.folder) as free:
            if not free or (entry.folder / FILE_NAME).stat().st_mtime != entry.used:
                return False
            # Under another name first: a folder of the cache is whole, or it is not there.
            grave = Path(tempfile.mkdtemp(prefix=".removed-", dir=entry.folder.parent))
            entry.folder.rename(grave / entry.folder.name)
    except OSError:  # removed by somebody else, or not ours to remove: what was asked for is there all the same
        return False
    shutil.rmtree(grave, ignore_errors=True)
    return True


def _remove_abandoned(root: Path, now: float) -> None:
    """Work folders of compilers, and of this module, that were killed."""
    for folder in root.glob(".*"):
        try:
            abandoned = folder.is_dir() and folder.stat().st_mtime < now - _ABANDONED_SECONDS
        except FileNotFoundError:
            continue
        if abandoned:
            shutil.rmtree(folder, ignore_errors=True)
