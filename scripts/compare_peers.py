"""Measures `cupola serve` against other servers, interleaved, and writes docs/performance.md.

    python scripts/compare_peers.py [--rounds 3] [--only SECTION ...] [--peers NAME ...] [--quiet 0.2] [--keep]

Everything that it needs is made in build/peers the first time: llama.cpp's server, openvino-genai and
onnxruntime-genai, each in an environment of its own (llama.cpp is built, which takes ten minutes on two cores), and the
models in the types and layouts that they want. The measuring itself is `cupola bench`. A peer that cannot be installed,
a model that cannot be made and a comparison that fails are skipped, loudly; then the exit code is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cupola.bench.report import Report
from cupola.errors import CupolaError
from peers.comparisons import ALL_PEERS, LLAMA, PEERS, SECTIONS, Peer, Section
from peers.environments import CUPOLA, ROOT, compile_model, export, install, make_file, run, version
from peers.goals import QUIET
from peers.page import page


@dataclass(slots=True)
class Attempts:
    """Does one thing after the other, and remembers what failed."""

    failed: list[str] = field(default_factory=list)

    def succeed(self, what: str, work: Callable[[], None]) -> bool:
        """Do it; on failure say so, loudly."""
        print(f"--- {what}", flush=True)
        try:
            work()
        except (OSError, ValueError, subprocess.CalledProcessError, CupolaError) as error:
            print(f"\n*** SKIPPED: {what}: {error}\n", file=sys.stderr, flush=True)
            self.failed.append(what)
            return False
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description="Cupola's server against others.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=[section.name for section in SECTIONS], metavar="SECTION",
                        help=f"some of {', '.join(section.name for section in SECTIONS)}")  # fmt: skip
    parser.add_argument("--peers", nargs="*", choices=ALL_PEERS, metavar="NAME", default=list(ALL_PEERS),
                        help=f"some of {', '.join(ALL_PEERS)}")  # fmt: skip
    parser.add_argument("--quiet", type=float, default=QUIET, metavar="CORES",
                        help="measure again, a few times, while others keep more cores busy")  # fmt: skip
    parser.add_argument("--config", type=Path, help="compile configuration for Cupola's models")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--keep", action="store_true", help="measure nothing; write the page from the last figures")
    arguments = parser.parse_args()
    attempts = Attempts()
    if not arguments.keep:
        sections = [section for section in SECTIONS if not arguments.only or section.name in arguments.only]
        measure(sections, arguments, attempts)
    reports = read_reports(attempts)
    if reports:
        arguments.page.write_text(page(reports, {peer.key: version(peer) for peer in ALL_PEERS.values()}))
    if attempts.failed:
        sys.exit("".join(f"*** SKIPPED: {what}\n" for what in attempts.failed))


def measure(sections: Sequence[Section], arguments: argparse.Namespace, attempts: Attempts) -> None:
    """Install, make and measure whatever the sections need."""
    (ROOT / PEERS).mkdir(parents=True, exist_ok=True)
    # llama.cpp first, whomever is asked for: its tools make the models.
    wanted = [peer for peer in ALL_PEERS.values() if peer is LLAMA or peer.key in arguments.peers]
    there = {peer.key for peer in wanted if attempts.succeed(f"installing {peer.name}", partial(install, peer))}
    there &= set(arguments.peers)
    made: dict[str, bool] = {}
    for section in sections:
        model = section.model
        if model not in made:
            made[model] = attempts.succeed(f"making {model}", partial(make_model, model, arguments.config))
        for peer in section.peers if made[model] else ():
            if peer.key in there:
                what = f"measuring {section.name} against {peer.name}"
                attempts.succeed(what, partial(compare, section, peer, arguments.rounds, arguments.quiet))


def read_reports(attempts: Attempts) -> dict[tuple[str, str], Report]:
    """The last figures of every comparison, those of earlier runs included."""
    reports: dict[tuple[str, str], Report] = {}

    def read(section: Section, peer: Peer, file: Path) -> None:
        reports[section.name, peer.key] = Report.model_validate_json(file.read_text())

    for section in SECTIONS:
        for peer in section.peers:
            file = ROOT / section.report_path(peer)
            if file.exists():
                attempts.succeed(f"reading {section.report_path(peer)}", partial(read, section, peer, file))
    return reports


def make_model(model: str, config: Path | None) -> None:
    """The file, and Cupola's form of it."""
    make_file(model)
    compile_model(model, config)


def compare(section: Section, peer: Peer, rounds: int, quiet: float) -> None:
    """One run of `cupola bench`."""
    if peer is not LLAMA:
        export(peer, section.model)
    run(*CUPOLA, *section.command(peer, rounds, quiet))


if __name__ == "__main__":
    main()
