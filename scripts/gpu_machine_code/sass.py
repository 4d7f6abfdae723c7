"""One kernel's machine code: its instructions, its main loop, and how wide the loop's loads are.

The main loop is, of the loops that read global memory and contain no other, the one that moves most bytes; a kernel
that has none is taken as a whole. Loops are found by branches that go back.
"""

from __future__ import annotations

import re
import shutil
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_SECTION = re.compile(r"\.text\.(\w+):\n(.*?)(?=\n\s*\.section|\Z)", re.DOTALL)
_LABEL = re.compile(r"\s*\.L_(x_\d+):")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
_TARGET = re.compile(r"\bBRA\b.*\.L_(x_\d+)")
_WIDTHS = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
_MATRIX = ("HMMA", "QGMMA", "HGMMA", "IMMA")


@dataclass(frozen=True)
class Code:
    """Some instructions of one kernel."""

    instructions: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.instructions)

    def of(self, *names: str) -> int:
        """How many there are of these operations."""
        return sum(operation(line).partition(".")[0] in names for line in self.instructions)

    @property
    def matrix(self) -> int:
        """Instructions of matrix units."""
        return self.of(*_MATRIX)

    @property
    def loads(self) -> Counter[int]:
        """Loads from global memory, straight to shared memory or not, by their bytes a thread."""
        return Counter(
            width(line) for line in self.instructions if operation(line).partition(".")[0] in ("LDG", "LDGSTS")
        )

    @property
    def bytes(self) -> int:
        """Read from global memory by a warp."""
        return 32 * sum(size * count for size, count in self.loads.items())

    @property
    def ahead(self) -> int:
        """Bytes that a thread has asked for before the first multiplication."""
        found = 0
        for line in self.instructions:
            name = operation(line).partition(".")[0]
            if name in (*_MATRIX, "FFMA", "IDP", "HFMA2"):
                break
            found += width(line) if name in ("LDG", "LDGSTS") else 0
        return found


def operation(line: str) -> str:
    """The name of an instruction with its modifiers, without its predicate."""
    return re.sub(r"^@!?U?P[\dT]+\s+", "", line).split()[0]


def width(line: str) -> int:
    """Bytes of a thread."""
    return next((_WIDTHS[part] for part in operation(line).split(".") if part in _WIDTHS), 4)


def kernels(text: str) -> dict[str, tuple[Code, Code]]:
    """Of every kernel in what nvdisasm prints: all of it, and its main loop."""
    return {name: _kernel(body.splitlines()) for name, body in _SECTION.findall(text)}


def _kernel(lines: list[str]) -> tuple[Code, Code]:
    labels: dict[str, int] = {}
    found: list[str] = []
    for line in lines:
        if label := _LABEL.match(line):
            labels[label.group(1)] = len(found)
        elif (instruction := _INSTRUCTION.match(line)) and operation(instruction.group(1)) != "NOP":
            found.append(instruction.group(1))
    loops = []
    for end, line in enumerate(found):
        target = _TARGET.search(line)
        start = labels.get(target.group(1), end + 1) if target else end + 1
        if start < end:
            loops.append((start, end))
    inner = [loop for loop in loops if not any(loop != other and _within(other, loop) for other in loops)]
    codes = [Code(tuple(found[start : end + 1])) for start, end in inner]
    whole = Code(tuple(found))
    main = max((code for code in codes if code.bytes), key=lambda code: code.bytes, default=whole)
    return whole, main


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def find_nvdisasm() -> Path | None:
    """NVIDIA's disassembler: on the path, or of the package nvidia-cuda-nvdisasm."""
    found = shutil.which("nvdisasm")
    packaged = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/nvdisasm"))
    return Path(found) if found else packaged[0] if packaged else None
