"""What this machine's processor can do, as the operating system tells: for the compiler, and for who loads its work."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

# From <asm/hwcap.h> for 64-bit Arm: auxiliary vector entry -> bit -> feature, as /proc/cpuinfo calls it. The vector is
# asked in place of that file, because it is right in an emulated process too.
_ARM_BITS = {
    16: {1: "asimd", 8: "atomics", 10: "asimdhp", 20: "asimddp", 22: "sve"},
    26: {1: "sve2", 13: "i8mm", 14: "bf16"},
}


def machine() -> str:
    """The architecture, such as x86_64 or aarch64."""
    return platform.machine().lower()


def system() -> str:
    """The operating system: linux or macos."""
    return {"darwin": "macos"}.get(platform.system().lower(), platform.system().lower())


def flags() -> frozenset[str]:
    """The processor's features by Linux's names, such as avx512_vnni; empty where the system does not tell."""
    if machine() == "aarch64":
        return _arm_flags()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def _arm_flags() -> frozenset[str]:
    """Those of `_ARM_BITS` that the kernel gave to this process."""
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return frozenset()
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    words = {entry: int(getauxval(entry)) for entry in _ARM_BITS}
    return frozenset(
        name for entry, names in _ARM_BITS.items() for bit, name in names.items() if words[entry] >> bit & 1
    )
