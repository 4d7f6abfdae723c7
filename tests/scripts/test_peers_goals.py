"""Goals against figures: which peer decides, what counts as reached, and what the page says of it."""

from __future__ import annotations

import pytest

from cupola.bench.machine import this_machine
from cupola.bench.report import Bound, Figure, Limits, Report
from cupola.bench.statistics import Spread
from peers.comparisons import ALL_PEERS, LLAMA, OPENVINO, SECTIONS
from peers.goals import GOALS, Goal, Kind, judge, summary
from peers.page import page

WORK = "decode, one stream", "rate"


def figure(mine: float, theirs: float, *, more: bool = True, busy: float = 0.0, share: float | None = None) -> Figure:
    return Figure(
        workload=WORK[0],
        metric=WORK[1],
        unit="tokens/s",
        higher_is_better=more,
        values=((mine,), (theirs,)),
        spread=(Spread.of([mine]), Spread.of([theirs])),
        ratio=Spread.of([mine / theirs]),
        bound=None if share is None else Bound.ARITHMETIC,
        achieved=(None if share is None else mine * 1e9, None),
        share=(share, None),
        other_load=Spread.of([busy]),
    )


def report(*figures: Figure) -> Report:
    one = Spread.of([1e9])
    return Report(
        cupola="0",
        machine=this_machine(),
        seed=0,
        rounds=3,
        targets=("Cupola", "peer"),
        limits=Limits(threads=2, read=one, copy_=one, peak=one),
        figures=figures,
    )


def goal(kind: Kind, needed: float, *peers: str) -> Goal:
    return Goal("decode", needed, kind, "q4", *WORK, peers)


def test_the_best_peer_decides() -> None:
    reports = {("q4", "llama"): report(figure(30, 10)), ("q4", "openvino"): report(figure(30, 20))}
    verdict = judge(goal(Kind.FASTER, 2), reports)
    assert verdict is not None
    assert verdict.values == {"llama": 3, "openvino": 1.5}
    assert (verdict.best, verdict.reached) == (OPENVINO, False)
    against_one = judge(goal(Kind.FASTER, 2, "llama"), reports)
    assert against_one is not None
    assert (against_one.values, against_one.best, against_one.reached) == ({"llama": 3}, LLAMA, True)


@pytest.mark.parametrize(("kind", "needed"), [(Kind.FASTER, 2.4), (Kind.OF_THEIRS, 0.4)])
def test_less_time_is_faster(kind: Kind, needed: float) -> None:
    reports = {
        ("q4", "llama"): report(figure(10, 40, more=False)),
        ("q4", "openvino"): report(figure(10, 25, more=False)),
    }
    verdict = judge(goal(kind, needed), reports)
    assert verdict is not None
    assert (verdict.best, verdict.reached) == (OPENVINO, True)


def test_goals_about_cupola_alone() -> None:
    reports = {("q4", "openvino"): report(figure(2, 40, share=0.7)), ("q4", "llama"): report(figure(9, 40, share=0.1))}
    share = judge(goal(Kind.SHARE, 0.65), reports)
    own = judge(goal(Kind.OWN, 2), reports)
    assert share is not None
    assert own is not None
    assert (share.values, share.reached) == ({"openvino": 0.7}, True)
    assert (own.values, own.reached) == ({"openvino": 2}, True)


def test_what_was_not_measured_has_no_verdict() -> None:
    reports = {("q4", "llama"): report(figure(1, 2))}
    assert judge(goal(Kind.FASTER, 2, "openvino"), reports) is None
    assert judge(goal(Kind.SHARE, 0.5), reports) is None
    assert judge(goal(Kind.FASTER, 2), {("q8", "llama"): report(figure(1, 2))}) is None


def test_the_table_has_a_cell_for_everything() -> None:
    reports = {("q4", "llama"): report(figure(30, 10, busy=0.5)), ("q4", "openvino"): report(figure(30, 20))}
    lines = summary([goal(Kind.FASTER, 2), goal(Kind.OWN, 2), goal(Kind.FASTER, 2, "onnxruntime")], reports)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2:] == [
        "| decode | at least 2.00 times as fast |  | 3.00 | 1.50 |  | openvino-genai | no |",
        "| decode | at most 2.00 | 30.00 |  |  |  |  | no, on a busy machine |",
        "| decode | at least 2.00 times as fast |  |  |  |  |  | not measured |",
    ]


def test_every_goal_names_a_figure_that_is_measured() -> None:
    from cupola.bench.workloads import WORKLOADS

    sections = {section.name: section for section in SECTIONS}
    for each in GOALS:
        section = sections[each.section]
        assert set(each.peers) <= {peer.key for peer in section.peers}
        metrics = {
            (workload.title, metric.name)
            for workload in WORKLOADS
            if workload.group in section.groups
            for metric in workload.metrics
        }
        assert (each.workload, each.metric) in metrics, each


def test_the_page_has_goals_tables_and_commands() -> None:
    reports = {("q4", "llama"): report(figure(30, 10, share=0.6)), ("q4", "openvino"): report(figure(30, 20))}
    text = page(reports, {"llama": "1.2", "openvino": "3.4"})
    assert "llama.cpp 1.2, openvino-genai 3.4." in text
    assert "| decode, one stream, `q4`, Q4_0 | at least 1.80 times as fast |  | 3.00 |" in text
    # The peer computes the same model: a third of the speed is a third of the share.
    assert "30.0 (30.0-30.0), 30.0 GOP/s, 60% | 10.0 (10.0-10.0), 10.0 GOP/s, 20% | **3.00 (3.00-3.00)**" in text
    assert '--vs-spawn "build/peers/llama.cpp/llama-server -m build/peers/smollm2-q4_0.gguf --port {port}' in text
    assert "Taken on a busy machine" not in text
    assert "Q8_0" not in text
    assert "Taken on a busy machine" in page({("q4", "llama"): report(figure(1, 2, busy=1.0))}, {})


def test_commands_of_all_peers() -> None:
    for section in SECTIONS:
        for peer in section.peers:
            words = section.command(peer, 3, 0.2)
            assert peer in ALL_PEERS.values()
            assert words.count("--only") == len(section.groups)
            spawn, other = words[words.index("--spawn") + 1], words[words.index("--vs-spawn") + 1]
            assert "--port {port}" in spawn
            assert "--port {port}" in other
            assert str(section.batch * section.context) in other
