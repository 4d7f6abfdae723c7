"""Writing files into a model folder, with our own errors."""

from __future__ import annotations

import errno
from pathlib import Path

from cupola.errors import StorageError

_HINTS = {
    errno.ENOSPC: "Free some space, or choose another folder.",
    errno.EDQUOT: "Free some space, or choose another folder.",
    errno.EFBIG: "Raise the limit on the size of files, or choose another file system.",
    errno.EACCES: "Choose a folder that you may write to.",
    errno.EPERM: "Choose a folder that you may write to.",
    errno.EROFS: "Choose a folder that you may write to.",
    errno.ENOENT: "Create the folder first.",
}


def storage_error(path: Path, error: OSError) -> StorageError:
    """What went wrong when `path` was written, as a sentence."""
    return StorageError(f"{path} cannot be written: {error.strerror}", hint=_HINTS.get(error.errno or 0))


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file; a StorageError says why it could not."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise storage_error(path, error) from error
