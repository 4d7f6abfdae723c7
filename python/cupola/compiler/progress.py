"""How a compilation tells of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of one stage: compile, convert, hash, and before them those of `calibrate`."""

    stage: str
    done: int
    total: int


OnProgress: TypeAlias = Callable[[Progress], None]
