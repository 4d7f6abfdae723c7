"""Assembly of a kernel, cut into its innermost loops."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"(\.L\w+):")
_JUMP = re.compile(r"j[a-z]+\s+(\.L\w+)")
_SPILL = re.compile(r"vmov\w+\s+%[xyz]mm\d+, -?\d*\(%r[sb]p\)")
_RELOAD = re.compile(r"\s-?\d*\(%r[sb]p\).*, %[xyz]mm\d+")


@dataclass(frozen=True)
class Loop:
    """The instructions of a loop that holds no other loop, from its label to the jump back."""

    label: str
    instructions: tuple[str, ...]

    def count(self, mnemonic: str) -> int:
        """How many instructions begin with `mnemonic`."""
        return sum(line.startswith(mnemonic) for line in self.instructions)

    @property
    def spills(self) -> list[str]:
        """Stores of vector registers to fixed places on the stack."""
        return [line for line in self.instructions if _SPILL.match(line)]

    @property
    def reloads(self) -> list[str]:
        """Vectors read from fixed places on the stack."""
        return [line for line in self.instructions if _RELOAD.search(line)]

    def describe(self) -> str:
        """The whole loop, for the message of a failing test."""
        return "\n    ".join([f"{self.label}:", *self.instructions])


def innermost_loops(assembly: str) -> list[Loop]:
    """All innermost loops in the order of the text: jumps back that enclose no other."""
    lines = [line.strip() for line in assembly.splitlines()]
    labels: dict[str, int] = {}
    ranges: list[tuple[int, int, str]] = []
    for at, line in enumerate(lines):
        if match := _LABEL.match(line):
            labels[match[1]] = at
        elif (match := _JUMP.match(line)) and match[1] in labels:
            ranges.append((labels[match[1]], at, match[1]))
    return [
        Loop(label, tuple(line for line in lines[start : end + 1] if line and line[0] not in ".#"))
        for start, end, label in ranges
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e, _ in ranges)
    ]
