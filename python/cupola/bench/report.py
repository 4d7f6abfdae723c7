"""The report: what was measured, on what, and how it compares. It is the JSON file, and the table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from cupola.bench.machine import Machine
from cupola.bench.statistics import Spread
from cupola.errors import StorageError

FORMAT_VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Frozen):
    """What the machine reached in the same run: bytes a second with `threads` threads."""

    threads: int
    read: Spread
    copy_: Spread


class Figure(_Frozen):
    """One metric of one workload; tuples have one member a target.

    Args:
        values: of every round.
        spread: of the rounds.
        ratio: first target / second one, round by round; None with one target.
        share: of the memory's read bandwidth that the median needs; None where the traffic is not known.
        other_load: cores that foreign processes kept busy while the workload was measured, over rounds and targets.
    """

    workload: str
    metric: str
    unit: str
    higher_is_better: bool
    values: tuple[tuple[float, ...], ...]
    spread: tuple[Spread, ...]
    ratio: Spread | None
    share: tuple[float | None, ...]
    other_load: Spread


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
            cells += [number(spread) + _share(share) for spread, share in zip(figure.spread, figure.share, strict=True)]
            if len(self.targets) > 1:
                cells.append(number(figure.ratio) if figure.ratio else "")
            table.add_row(*cells, end_section=last)
        return table

    def notes(self) -> Sequence[str]:
        """What one has to know to read the figures, a sentence each."""
        loads = [figure.other_load for figure in self.figures]
        read, copy = self.limits.read.median / 1e9, self.limits.copy_.median / 1e9
        lines = [
            f"Medians of {self.rounds} rounds, least and greatest in brackets.",
            f"{self.machine.describe()}.",
            f"Memory, {self.limits.threads} threads: {read:.1f} GB/s read, {copy:.1f} GB/s copied; "
            "percentages are shares of the former.",
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


def _share(share: float | None) -> str:
    return "" if share is None else f" {share:.0%}"
