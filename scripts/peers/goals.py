"""The goals, and whether the figures reach them: the first table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from cupola.bench.report import Figure, Report
from peers.comparisons import ALL_PEERS, Peer

QUIET = 0.2  # cores that others may keep busy in a figure that counts

Reports = Mapping[tuple[str, str], Report]  # by section and peer


class Kind(Enum):
    """What a goal's number means; the value is how to say it."""

    FASTER = "at least {} times as fast"
    OF_THEIRS = "at most {} of theirs"
    SHARE = "at least {} of the limit"
    OWN = "at most {}"


@dataclass(frozen=True, slots=True)
class Goal:
    """One number to reach.

    Args:
        work: for people.
        kind: what `needed` means. FASTER and OF_THEIRS compare with peers; the others are about Cupola alone.
        section, workload, metric: where the figure is.
        peers: keys of those to compare with; none named: all that were measured, of whom the best one counts.
    """

    work: str
    needed: float
    kind: Kind
    section: str
    workload: str
    metric: str
    peers: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether it is about Cupola alone."""
        return self.kind in (Kind.SHARE, Kind.OWN)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured of a goal.

    Args:
        values: by peer's key; of a goal about Cupola alone one value, under the first peer beside which it was taken.
        best: the peer that decides.
        reached: whether its value is good enough.
        quiet: whether the machine was ours alone.
    """

    values: Mapping[str, float]
    best: Peer
    reached: bool
    quiet: bool


def judge(goal: Goal, reports: Reports) -> Verdict | None:
    """Compare a goal with the figures; None where there is none."""
    figures = {
        peer: figure
        for (section, peer), report in reports.items()
        if section == goal.section and (not goal.peers or peer in goal.peers)
        if (figure := report.find(goal.workload, goal.metric)) is not None
    }
    values = {peer: value for peer, figure in figures.items() if (value := _value(goal.kind, figure)) is not None}
    if not values:
        return None
    if goal.is_own:
        values = dict([next(iter(values.items()))])
    more_is_better = goal.kind in (Kind.FASTER, Kind.SHARE)
    best = min(values, key=lambda peer: values[peer] if more_is_better else -values[peer])
    reached = values[best] >= goal.needed if more_is_better else values[best] <= goal.needed
    return Verdict(values, ALL_PEERS[best], reached, is_quiet(figures[best]))


def is_quiet(figure: Figure) -> bool:
    """Whether other processes left the machine alone."""
    return figure.other_load.median <= QUIET


def _value(kind: Kind, figure: Figure) -> float | None:
    if kind is Kind.SHARE:
        return figure.share[0]
    if kind is Kind.OWN:
        return figure.spread[0].median
    if figure.ratio is None or not figure.ratio.median:
        return None
    if kind is Kind.FASTER and not figure.higher_is_better:
        return 1 / figure.ratio.median
    return figure.ratio.median


def summary(goals: Sequence[Goal], reports: Reports) -> list[str]:
    """The table's lines."""
    names = " | ".join(peer.name for peer in ALL_PEERS.values())
    lines = [
        f"| work | goal | Cupola alone | {names} | best peer | reached |",
        "|---|---|---|" + "---|" * (len(ALL_PEERS) + 2),
    ]
    return lines + [_row(goal, judge(goal, reports)) for goal in goals]


def _row(goal: Goal, verdict: Verdict | None) -> str:
    alone, best, reached = "", "", "not measured"
    by_peer = dict.fromkeys(ALL_PEERS, "")
    if verdict is not None:
        values = {key: _number(goal, value) for key, value in verdict.values.items()}
        reached = ("**yes**" if verdict.reached else "no") + ("" if verdict.quiet else ", on a busy machine")
        if goal.is_own:
            alone = values[verdict.best.key]
        else:
            by_peer |= values
            best = verdict.best.name
    cells = [goal.work, goal.kind.value.format(_number(goal, goal.needed)), alone, *by_peer.values(), best, reached]
    return f"| {' | '.join(cells)} |"


def _number(goal: Goal, value: float) -> str:
    return f"{value:.0%}" if goal.kind is Kind.SHARE else f"{value:.2f}"


# Workloads and metrics, as `cupola bench` names them
_DECODE = "decode, one stream", "rate"
_BUSY = "decode, one stream beside a busy process", "rate"
_PREFILL_512, _PREFILL_2048 = ("prompt of 512 tokens", "prompt tokens"), ("prompt of 2048 tokens", "prompt tokens")
_FIRST_32, _FIRST_512 = ("prompt of 32 tokens", "time to first token"), ("prompt of 512 tokens", "time to first token")
_CLIENTS_4, _CLIENTS_16 = ((f"{count} clients, 128 in, 128 out", "output tokens") for count in (4, 16))
_WARM = "one prefix of 1000 tokens", "time to first token, warm"
_EIGHT = "one prefix of 1000 tokens", "8 clients at once, 32 out, cold"
_START, _MEMORY = ("start of the server", "to the first token"), ("start of the server", "memory then")
_GAPS, _WAIT = (
    ("a prompt of 4096 tokens among 8 streams", name) for name in ("during / before", "among streams / alone")
)


def _larger(size: str) -> list[Goal]:
    model = f"{size.upper()} shape"
    return [
        Goal(f"{model}: decode, one stream, `q4`", 1.8, Kind.FASTER, f"{size}-q4", *_DECODE, ("llama",)),
        Goal(f"{model}: prefill, 512 tokens, `q4`", 2.2, Kind.FASTER, f"{size}-q4", *_PREFILL_512),
        Goal(f"{model}: prefill, 2,048 tokens, `q4`", 2.5, Kind.FASTER, f"{size}-q4", *_PREFILL_2048),
        Goal(f"{model}: memory's bandwidth in decode, `q4`", 0.65, Kind.SHARE, f"{size}-q4", *_DECODE),
        Goal(f"{model}: decode, one stream, `q8`", 1.3, Kind.FASTER, f"{size}-q8", *_DECODE, ("llama",)),
        Goal(f"{model}: prefill, 512 tokens, `q8`", 1.8, Kind.FASTER, f"{size}-q8", *_PREFILL_512, ("llama",)),
    ]


GOALS: Sequence[Goal] = (
    Goal("decode, one stream, `q4`, Q4_0", 1.8, Kind.FASTER, "q4", *_DECODE, ("llama",)),
    Goal("decode, one stream, `q4`, Q4_1", 3.0, Kind.FASTER, "q4-1", *_DECODE, ("llama",)),
    Goal("decode, one stream, `q4`", 2.0, Kind.FASTER, "q4", *_DECODE, ("openvino",)),
    Goal("decode, one stream, `q4`", 1.6, Kind.FASTER, "q4", *_DECODE, ("onnxruntime",)),
    Goal("4 clients, output tokens", 2.5, Kind.FASTER, "clients", *_CLIENTS_4),
    Goal("16 clients, output tokens", 3.0, Kind.FASTER, "clients", *_CLIENTS_16),
    Goal("prefill, 512 tokens", 2.2, Kind.FASTER, "q4", *_PREFILL_512),
    Goal("prefill, 2,048 tokens", 2.5, Kind.FASTER, "q4", *_PREFILL_2048),
    Goal("8 clients behind one prefix of 1,000 tokens", 2.5, Kind.FASTER, "clients", *_EIGHT),
    Goal("8 clients behind one prefix: the time", 0.35, Kind.OF_THEIRS, "clients", *_EIGHT),
    Goal("time to first token, warm prefix", 0.4, Kind.OF_THEIRS, "clients", *_WARM, ("llama",)),
    Goal("decode, one stream, `q8`", 1.3, Kind.FASTER, "q8", *_DECODE),
    Goal("prefill, 512 tokens, `q8`", 1.8, Kind.FASTER, "q8", *_PREFILL_512),
    Goal("prefill, 2,048 tokens, `q8`", 1.8, Kind.FASTER, "q8", *_PREFILL_2048),
    Goal("memory's bandwidth in decode, `q4`", 0.65, Kind.SHARE, "q4", *_DECODE),
    Goal("memory's bandwidth in decode, `q8`", 0.65, Kind.SHARE, "q8", *_DECODE),
    Goal("time to first token, 32 tokens", 0.5, Kind.OF_THEIRS, "q4", *_FIRST_32, ("llama",)),
    Goal("time to first token, 512 tokens", 0.5, Kind.OF_THEIRS, "q4", *_FIRST_512, ("llama",)),
    Goal("start to the first token, s", 1.0, Kind.OWN, "start", *_START),
    Goal("one stream beside a busy process", 5.0, Kind.FASTER, "clients", *_BUSY, ("llama",)),
    Goal("memory after the first token", 1.0, Kind.OF_THEIRS, "start", *_MEMORY, ("llama",)),
    Goal("8 streams while 4,096 tokens come: p99 gap / quiet one", 3.0, Kind.OWN, "intrusion", *_GAPS),
    Goal("4,096 tokens among 8 streams: first token / alone", 1.5, Kind.OWN, "intrusion", *_WAIT),
    *_larger("0.5b"),
    *_larger("1b"),
)
