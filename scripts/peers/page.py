"""docs/performance.md: the goals, then a table for every model, work and peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cupola.bench.report import Bound, Figure, Report, number
from peers.comparisons import ALL_PEERS, SECTIONS, THREADS, Peer, Section
from peers.goals import GOALS, QUIET, Reports, is_quiet, summary


def page(reports: Reports, versions: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        reports: at least one.
        versions: of the peers, by key.
    """
    report = next(iter(reports.values()))
    quiet = all(is_quiet(figure) for each in reports.values() for figure in each.figures)
    peers = ", ".join(f"{peer.name} {versions[peer.key]}" for peer in ALL_PEERS.values() if peer.key in versions)
    blocks = [
        TITLE,
        *([] if quiet else [BUSY]),
        HEAD.format(machine=report.machine.describe(), python=report.machine.python, threads=THREADS, peers=peers),
        GOALS_HEAD,
        "\n".join(summary(GOALS, reports)) + "\n",
        HOW.format(quiet=QUIET),
    ]
    for section in SECTIONS:
        measured = {
            peer: reports[section.name, peer.key] for peer in section.peers if (section.name, peer.key) in reports
        }
        if measured:
            blocks.append(f"## {section.title}\n\n{section.about}\n")
            blocks += [_table(section, peer, each) for peer, each in measured.items()]
    return "\n".join([*blocks, TAIL])


def _table(section: Section, peer: Peer, report: Report) -> str:
    """One comparison: its command, its figures."""
    lines = [
        f"### {section.title.rpartition(': ')[2]}: against {peer.name}\n",
        f"Rounds: {report.rounds}. Limits in this run, {report.limits.threads} threads: {report.limits.describe()}.\n",
        "```sh",
        _shell(["cupola", *section.command(peer, report.rounds, QUIET)]),
        "```\n",
        f"| work | figure | Cupola | {peer.name} | ratio | others |",
        "|---|---|---|---|---|---|",
        *(_row(_complete(figure)) for figure in report.figures),
    ]
    return "\n".join(lines) + "\n"


def _complete(figure: Figure) -> Figure:
    """With the peer's share of the arithmetic, which follows from ours: both compute the same model."""
    (ours, theirs), spread = figure.achieved, figure.spread
    if figure.bound is not Bound.ARITHMETIC or ours is None or theirs is not None:
        return figure
    times, share = spread[1].median / spread[0].median, figure.share[0]
    shares = None if share is None else (share, share * times)
    return figure.model_copy(update={"achieved": (ours, ours * times), "share": shares or figure.share})


def _row(figure: Figure) -> str:
    """The ratio is bold where Cupola is ahead on a machine of its own."""
    cells = [number(spread) + figure.load(target) for target, spread in enumerate(figure.spread)]
    others = f"{figure.other_load.median:.2f} ({figure.other_load.least:.2f}-{figure.other_load.greatest:.2f})"
    ratio = "" if figure.ratio is None else number(figure.ratio)
    if figure.ratio is not None and (figure.ratio.median > 1) == figure.higher_is_better and is_quiet(figure):
        ratio = f"**{ratio}**"
    return f"| {figure.workload} | {figure.metric}, {figure.unit} | {' | '.join(cells)} | {ratio} | {others} |"


def _shell(words: Sequence[str]) -> str:
    """A command for people, one part a line."""
    quoted = [f'"{word}"' if " " in word else word for word in words]
    text = " ".join(quoted)
    for option in (" --vs-spawn", " --only", " --name", " --weights", " --num-threads 2 --rounds"):
        text = text.replace(option, f" \\\n {option}", 1)
    return text


TITLE = "# Performance\n"

BUSY = """\
> **Taken on a busy machine.** Other processes used it while some of these figures were measured: see the last column of
> the tables. Measure again with `make bench` on a quiet machine before quoting a ratio.
"""

HEAD = """\
Cupola's server against other servers for the same processor, over HTTP, {threads} threads each. `make bench` installs
the peers, measures, and writes this page (`scripts/compare_peers.py`). `cupola bench` measures any server, or an engine
in its own process.

**Machine.** {machine}, Python {python}.

**Peers.** {peers}.
llama.cpp has a server of its own, built on this machine for this machine. The other two are libraries: a thin server
around each (`scripts/peers`) passes requests to its own engine for many requests at a time.
"""

GOALS_HEAD = """\
## Goals

What Cupola wants to reach, and what was measured. A peer's column says how many times as fast Cupola is, or what part
of the peer's time or memory it takes: the median over interleaved rounds. Where several are measured, the best decides.
"""

HOW = """\
## How it is measured

`cupola bench` starts both servers. In each round every workload runs on one server and at once on the other, with the
same prompts; who comes first changes with each round, and who is not being measured is frozen (SIGSTOP). Prompts are
random words, new in each round; answers are greedy and run past the end of sequence; tokens are counted by each
server's `usage`. The client shares the machine with the server that it measures.

**How to read the tables.** Cells are medians of the rounds, with the least and the greatest in brackets. Ratios are
Cupola / peer, taken round by round: of rates more is better, of times and memory less; bold where Cupola is ahead and
nobody else used the machine. Absolute figures carry over neither to another machine nor to another hour of this one;
the ratios are the result.

**Shares.** The limits of the machine are measured in the same run, once a round, with as many threads; the best round
counts. *Memory*: how fast a large buffer can be read. A decoded token reads the weights and, for Cupola, keys and
values; of peers the size of their weights' file is taken. *Arithmetic*: how many 8-bit multiplications and additions
the processor's best dot-product instruction can do, data in registers (`cupola.compiler.peak`). A prompt's token takes
two for each weight of the layers; attention, and the integers' way from and to floats, are not counted.

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
| a prompt of 4096 tokens among 8 streams | the prompt alone; 8 streams of 512 tokens alone; then both (see below) |
| start of the server | from the start of the process to the first token; its memory then |

In the last but one, the prompt comes when all streams are on their way. Gaps "before" are those between tokens while
all 8 streams run alone; gaps "during" are those while the prompt waits for its first token.
"""
