"""From what the runs left behind to the table of docs/conformance.md. Runs nothing itself.

pytest and Schemathesis write JUnit's XML, node's test runner writes TAP; a row of the table is a file of tests.
"""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TAP = re.compile(r"^\s*(not )?ok \d+ - (.+?)(?: # (SKIP|TODO).*)?$", re.MULTILINE)

_PREFACE = """# Conformance

`make conformance` runs these clients, as their packages ship them, against the server with the default model, and
writes this table. Where a model of 135 million parameters cannot be expected to say something sensible, what is checked
is what the server guarantees: the shape of every answer, the order of events, and what a grammar enforces.

| client | version | what was run | passed |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many tests there were, and how many of them passed."""

    passed: int
    total: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.passed + other.passed, self.total + other.total)

    def __str__(self) -> str:
        return f"{self.passed} of {self.total}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    client: str
    version: str
    what: str
    tally: Tally


def junit_tallies(path: Path) -> dict[str, Tally]:
    """The tests of a JUnit file by the last part of their class, which for pytest is the file of tests."""
    tallies: dict[str, Tally] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        file = case.get("classname", "").rpartition(".")[2]
        bad = any(child.tag in ("failure", "error", "skipped") for child in case)
        tallies[file] = tallies.get(file, Tally(0, 0)) + Tally(not bad, 1)
    return tallies


def tap_tally(text: str) -> Tally:
    """The tests of a TAP stream; a file as a whole, which some versions of node report, is no test."""
    found = [match for match in _TAP.finditer(text) if not match[2].endswith(".mjs")]
    return Tally(sum(not match[1] and not match[3] for match in found), len(found))


def purpose(path: Path) -> str:
    """What a file of tests says of itself in its first sentence, behind the colon if there is one."""
    text = path.read_text()
    line = ast.get_docstring(ast.parse(text)) or "" if path.suffix == ".py" else text.removeprefix("// ")
    sentence = " ".join(line.split("\n\n")[0].splitlines()[0].split()).rstrip(".")
    return sentence.partition(": ")[2] or sentence


def table(rows: Iterable[Row]) -> str:
    """The page."""
    return _PREFACE + "".join(f"| {row.client} | {row.version} | {row.what} | {row.tally} |\n" for row in rows)


def all_passed(rows: Iterable[Row]) -> bool:
    """Whether there was something in each row, and nothing failed."""
    return all(0 < row.tally.total == row.tally.passed for row in rows)


def versions(lines: str) -> Mapping[str, str]:
    """From what `pip freeze` prints."""
    return dict(line.strip().lower().split("==", 1) for line in lines.splitlines() if "==" in line)
