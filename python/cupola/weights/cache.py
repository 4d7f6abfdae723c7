"""Where Cupola keeps what it fetched and made."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """$CUPOLA_HOME, else $XDG_CACHE_HOME/cupola, else ~/.cache/cupola. The folder need not exist yet."""
    if home := os.environ.get("CUPOLA_HOME"):
        return Path(home).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser() / "cupola"
    return Path.home() / ".cache" / "cupola"
