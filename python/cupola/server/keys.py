"""API keys: which ones open the server. They come from the command line, the environment, or a file that may change."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cupola.errors import UsageError

_LOOK_SECONDS = 1.0  # between looks at the file

_LOG = logging.getLogger("cupola.server")


class KeyRing:
    """Keys to compare with. A file is read again when it has changed; while it cannot be used, its old keys hold.

    Args:
        keys: fixed ones.
        file: one key a line; blank lines and lines that begin with `#` do not count.
        clock: seconds that pass.

    Raises:
        UsageError: the file cannot be read, or holds no key; a key holds what no header can carry.
    """

    def __init__(
        self, keys: Sequence[str] = (), file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fixed = [_digest(_checked(key, "--api-key").encode()) for key in keys]
        self._file = file
        self._clock = clock
        self._looked = clock()
        self._seen = None if file is None else _mark(file)
        self._read = [] if file is None else _read(file)

    def opens(self, key: bytes) -> bool:
        """The key is one of them. The time that it takes says nothing about how close a wrong one came."""
        self._look()
        digest = _digest(key)
        # All are compared, also when one was found.
        matches = [hmac.compare_digest(digest, known) for known in (*self._fixed, *self._read)]
        return any(matches)

    def _look(self) -> None:
        """Takes over the file's keys when it has changed."""
        now = self._clock()
        if self._file is None or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            mark = _mark(self._file)
            if mark == self._seen:
                return
            self._seen = mark
            self._read = _read(self._file)
        except UsageError as error:
            _LOG.warning("%s The keys that were read before stay valid.", error.message)
        else:
            _LOG.info("%d API keys were read from `%s`", len(self._read), self._file)


def _read(file: Path) -> list[bytes]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The file of API keys `{file}` cannot be read: {error}.", hint="see --api-key-file"
        ) from error
    keys = [line.strip() for line in lines]
    keys = [_checked(key, f"`{file}`") for key in keys if key and not key.startswith("#")]
    if not keys:
        raise UsageError(f"The file of API keys `{file}` holds no key.", hint="write one key a line")
    return [_digest(key.encode()) for key in keys]


def _mark(file: Path) -> tuple[int, int, int] | None:
    """What changes when the file does, also when another one takes its place."""
    try:
        status = file.stat()
    except OSError as error:
        raise UsageError(
            f"The file of API keys `{file}` cannot be read: {error}.", hint="see --api-key-file"
        ) from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def _checked(key: str, where: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"An API key of {where} is empty, or holds a space or what is no printable ASCII.",
            hint="use letters, digits and signs",
        )
    return key


def _digest(key: bytes) -> bytes:
    """All keys become equally long, so that a comparison does not tell their length."""
    return hashlib.sha256(key).digest()
