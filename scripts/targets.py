"""Measures every target and writes the table of docs/targets.md.

    python scripts/targets.py [--work build/targets] [--out docs/targets.md] [TARGET...]

Rows of targets that are not named keep what they had. What was measured also goes to WORK/rows.json, which the tests of
`make targets` read.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / folder) for folder in ("scripts", "tests", "tests/cuda")]

from cupola.compiler.support import every_target  # noqa: E402
from device_checks.rows import REFERENCE, Bench, Row  # noqa: E402

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEAD = ("target", "scheme", "compiles here", "executed on", "logits differ by", "checked", "missing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build/targets")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs/targets.md")
    parser.add_argument("targets", nargs="*")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    record = arguments.work / "rows.json"
    rows = {name: Row(**row) for name, row in json.loads(record.read_text()).items()} if record.exists() else {}
    bench = Bench(arguments.work)
    for target in every_target():
        if target.name in (arguments.targets or [target.name]):
            print(target.name, flush=True)
            rows[target.name] = bench.row(target)
            record.write_text(json.dumps({name: asdict(row) for name, row in rows.items()}, indent=1) + "\n")
    ordered = [rows[target.name] for target in every_target() if target.name in rows]
    arguments.out.write_text(with_table(arguments.out.read_text(encoding="utf-8"), ordered), encoding="utf-8")


def with_table(text: str, rows: list[Row]) -> str:
    """The page with another table."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    lines = [" | ".join(HEAD), "|".join("---" for _ in HEAD), *(" | ".join(_cells(row)) for row in rows)]
    table = "\n".join(f"| {line} |" for line in lines).replace("| ---|", "|---|").replace("|--- |", "|---|")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _cells(row: Row) -> tuple[str, ...]:
    error = (
        "(what others are compared with)"
        if row.target == REFERENCE
        else ""
        if row.error is None
        else "0 (the same bits)"
        if row.error == 0
        else f"{row.error:.1e}"
    )
    size = f"yes, {row.compiled / 1024:.0f} KiB" if row.compiled else "no"
    return (f"`{row.target}`", row.scheme, size, row.executed or "not executed", error, row.checked, row.missing)


if __name__ == "__main__":
    main()
