"""Amounts of memory as people write and read them: on a command line, in an environment variable, on a screen."""

from __future__ import annotations

import re

from cupola.errors import UsageError

_UNITS = {
    "": 1,
    "b": 1,
    "k": 2**10,
    "kb": 10**3,
    "kib": 2**10,
    "m": 2**20,
    "mb": 10**6,
    "mib": 2**20,
    "g": 2**30,
    "gb": 10**9,
    "gib": 2**30,
    "t": 2**40,
    "tb": 10**12,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str, option: str) -> int:
    """Bytes of `512MiB`, `4GB`, `1.5g` or a plain number of bytes.

    Raises:
        UsageError: not a size; the message names the option, or the variable.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) == 0:
        raise UsageError(f"`{option}` is `{text}`, which is not an amount of memory.", hint="write 512MiB or 4GiB")
    return int(float(match[1]) * unit)


def show_size(count: int) -> str:
    """Bytes as `512 B`, `90 MB` or `1.5 GB`: decimal units, two digits at least."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}" if amount < 9.95 and unit != "B" else f"{amount:.0f} {unit}"
