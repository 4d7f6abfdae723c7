"""The report: what was measured, on what, and how it compares. It is the JSON file, and the table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from cupola.bench.machine import Machine
from cupola.bench.statistics import Spread
from cupola.errors import StorageError

FORMAT_VERSION = 2


class Bound(str, Enum):
    """What of a machine limits a figure."""

    MEMORY = "memory"  # bytes read a second
    ARITHMETIC = "arithmetic"  # 8-bit multiplications and additions a second


_UNITS = {Bound.MEMORY: "GB/s", Bound.ARITHMETIC: "GOP/s"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Frozen):
    """What the machine reached in the same run with `threads` threads, once a round.

    Args:
        read, copy_: bytes a second.
        peak: 8-bit multiplications and additions a second; None if not measured.
    """

    threads: int
    read: Spread
    copy_: Spread
    peak: Spread | None

    def describe(self) -> str:
        """Part of a sentence."""
        parts = [f"{number(self.read.scaled(1e-9))} GB/s read", f"{number(self.copy_.scaled(1e-9))} GB/s copied"]
        parts += [] if self.peak is None else [f"{number(self.peak.scaled(1e-9))} GOP/s of 8-bit integers"]
        return ", ".join(parts)

    def of(self, bound: Bound) -> float | None:
        """The limit itself: the best of all rounds, because nothing makes a machine seem faster than it is."""
        if bound is Bound.MEMORY:
            return self.read.greatest
        return None if self.peak is None else self.peak.greatest


class Figure(_Frozen):
    """One metric of one workload; tuples have one member a target.

    Args:
        values: of every round.
        spread: of the rounds.
        ratio: first target / second one, round by round; None with one target.
        bound: the limit that the figure is a share of; None of most.
        achieved: what the median takes of it, in bytes or operations a second; None where a token's cost is not known.
        share: that as a share of the limit.
        other_load: cores that foreign processes kept busy while the workload was measured, over rounds and targets.
    """

    workload: str
    metric: str
    unit: str
    higher_is_better: bool
    values: tuple[tuple[float, ...], ...]
    spread: tuple[Spread, ...]
    ratio: Spread | None
    bound: Bound | None
    achieved: tuple[float | None, ...]
    share: tuple[float | None, ...]
    other_load: Spread

    def load(self, target: int) -> str:
        """What it takes of the machine, such as `, 41.5 GB/s, 62%`; empty where that is not known."""
        achieved, share = self.achieved[target], self.share[target]
        if achieved is None or self.bound is None:
            return ""
        rate = f", {_digits(achieved / 1e9)} {_UNITS[self.bound]}"
        return rate if share is None else f"{rate}, {share:.0%}"


class Report(_Frozen):
    """One run."""

    format_version: int = FORMAT_VERSION
    cupola: str
    machine: Machine
    seed: int
    rounds: int
    targets: tuple[str, ...]
    limits: Limits
    figures: tuple[Figure, ...]

    def save(self, path: Path) -> None:
        """Write the JSON file.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"`{path}` cannot be written: {error.strerror}") from error

    def find(self, workload: str, metric: str) -> Figure | None:
        """The figure of this name, if it was measured."""
        return next((f for f in self.figures if (f.workload, f.metric) == (workload, metric)), None)

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=f"Cupola {self.cupola}", caption="\n".join(self.notes()), caption_justify="left")
        table.add_column("workload")
        table.add_column("figure")
        for name in self.targets:
            table.add_column(name, justify="right")
        if len(self.targets) > 1:
            table.add_column("ratio", justify="right")
        for place, figure in enumerate(self.figures):
            last = place + 1 == len(self.figures) or self.figures[place + 1].workload != figure.workload
            first = place == 0 or self.figures[place - 1].workload != figure.workload
            cells = [figure.workload if first else "", f"{figure.metric}, {figure.unit}"]
            cells += [number(spread) + figure.load(target) for target, spread in enumerate(figure.spread)]
            if len(self.targets) > 1:
                cells.append(number(figure.ratio) if figure.ratio else "")
            table.add_row(*cells, end_section=last)
        return table

    def notes(self) -> Sequence[str]:
        """What one has to know to read the figures, a sentence each."""
        loads = [figure.other_load for figure in self.figures]
        limits = self.limits
        lines = [
            f"Medians of {self.rounds} rounds, least and greatest in brackets.",
            f"{self.machine.describe()}.",
            f"Limits, {limits.threads} threads: {limits.describe()}. Percentages are shares of the best round's.",
            f"Other processes kept {min(load.least for load in loads):.2f} to "
            f"{max(load.greatest for load in loads):.2f} cores busy meanwhile.",
        ]
        if len(self.targets) > 1:
            lines.insert(1, f"Ratios are {self.targets[0]} / {self.targets[1]}, round by round.")
        return lines


def number(spread: Spread) -> str:
    """`median (least-greatest)` with three digits or more."""
    return f"{_digits(spread.median)} ({_digits(spread.least)}-{_digits(spread.greatest)})"


def _digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
