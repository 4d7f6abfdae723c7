"""Text in columns, for the screens of commands: no library, because it is on the way of every start."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows of equally many cells, each column as wide as its widest; one that is empty below its head is left out."""
    kept = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    widths = {index: max(len(row[index]) for row in rows) for index in kept}
    lines = ("  ".join(row[index].ljust(widths[index]) for index in kept) for row in rows)
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)
