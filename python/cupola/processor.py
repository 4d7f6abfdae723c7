"""What this machine's processor can do, as the operating system tells: for the compiler, and for who loads its work."""

from __future__ import annotations

import platform
from pathlib import Path


def machine() -> str:
    """The architecture, such as x86_64 or aarch64."""
    return platform.machine().lower()


def flags() -> frozenset[str]:
    """The processor's features by Linux's names, such as avx512_vnni; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()
