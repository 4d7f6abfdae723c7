"""Order, pauses, prompts and arithmetic of the rounds, on targets with a clock of their own."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from fake_target import FakeTarget

from cupola.bench.interleave import Plan, measure
from cupola.bench.report import Report
from cupola.bench.sample import Sample
from cupola.bench.target import TokenCost
from cupola.bench.workloads import WORKLOADS, Workload, check_groups, choose_workloads
from cupola.errors import EngineError, UsageError


def workloads(*groups: str) -> tuple[Workload, ...]:
    return tuple(workload for workload in WORKLOADS if workload.group in groups)


def plan(*targets: FakeTarget, groups: tuple[str, ...], rounds: int, seed: int = 0, quiet: float = math.inf) -> Plan:
    return Plan(targets, workloads(*groups), rounds, seed, 1, quiet, 1 << 20, lambda _: 1e9)


async def run(*targets: FakeTarget, groups: tuple[str, ...] = ("decode",), rounds: int = 3) -> Report:
    return await measure(plan(*targets, groups=groups, rounds=rounds), lambda _: None)


async def test_targets_alternate_and_change_places_in_every_round() -> None:
    diary: list[tuple[str, str]] = []
    await run(FakeTarget("a", 1, diary), FakeTarget("b", 1, diary), groups=("decode", "prefix"), rounds=2)
    asked = [name for name, what in diary if what == "resume"]
    # One warm-up each; then decode and prefix of the first round, and both again the other way round; at the end
    # nobody is left suspended.
    assert "".join(asked) == "ab" + "ab" * 2 + "ba" * 2 + "ab"


async def test_only_one_target_runs_at_a_time() -> None:
    diary: list[tuple[str, str]] = []
    await run(FakeTarget("a", 1, diary), FakeTarget("b", 1, diary))
    running: set[str] = set()
    for name, what in itertools.dropwhile(lambda entry: entry[1] != "suspend", diary[:-2]):
        if what == "resume":
            running.add(name)
        elif what == "suspend":
            running.discard(name)
        assert len(running) <= 1


async def test_a_target_that_dies_leaves_nobody_suspended() -> None:
    first, second = FakeTarget("a", 1), FakeTarget("b", 1, dies_at=4)
    with pytest.raises(EngineError, match="b closed the connection"):
        await run(first, second)
    assert not first.suspended
    assert not second.suspended


async def test_all_targets_get_the_same_prompts_and_none_twice() -> None:
    first, second = FakeTarget("a", 1), FakeTarget("b", 1)
    await run(first, second, groups=("decode", "prefill", "clients"), rounds=3)
    measured = [prompt for prompt in second.prompts if prompt != "Hello"]
    assert [prompt for prompt in first.prompts if prompt != "Hello"][2:] == measured  # two have measured the length
    assert len(set(measured)) == len(measured)


async def test_prompts_are_as_long_as_the_server_counts() -> None:
    target = FakeTarget("a", 1)  # it counts a token more than words
    await run(target, groups=("prefill",), rounds=1)
    assert [len(prompt.split()) for prompt in target.prompts if prompt != "Hello"][-3:] == [31, 511, 2047]


async def test_another_seed_gives_other_prompts() -> None:
    prompts = []
    for seed in (0, 0, 1):
        target = FakeTarget("a", 1)
        await measure(plan(target, groups=("decode",), rounds=1, seed=seed), lambda _: None)
        prompts.append(target.prompts)
    assert prompts[0] == prompts[1] != prompts[2]


class Loads:
    """Stands for OtherLoad: gives these loads, one a measurement."""

    def __init__(self, *cores: float) -> None:
        self._cores = iter(cores)

    def __call__(self, _pids: object) -> Loads:
        return self

    def cores(self) -> float:
        return next(self._cores)


@pytest.mark.parametrize(
    ("cores", "kept"),
    [
        ((0.0, 0.1), (0.0, 0.1)),  # quiet at once
        ((0.0, 0.9, 0.8, 0.1, 0.2, 0.0), (0.0, 0.2)),  # one busy target spoils the attempt for both
        ((2.0, 0.9, 0.8, 0.7, 1.0, 0.0, *[2.0] * 6), (0.7, 0.8)),  # never quiet: the quietest of six
    ],
)
async def test_what_others_disturbed_is_measured_again(
    cores: tuple[float, ...], kept: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = Loads(*cores)
    monkeypatch.setattr("cupola.bench.interleave.OtherLoad", loads)
    targets = (FakeTarget("a", 1), FakeTarget("b", 1))
    report = await measure(plan(*targets, groups=("decode",), rounds=1, quiet=0.25), lambda _: None)
    (figure,) = report.figures
    assert (figure.other_load.least, figure.other_load.greatest) == kept
    assert len(figure.values[0]) == 1
    with pytest.raises(StopIteration):
        loads.cores()
    measured = [prompt for prompt in targets[1].prompts if prompt != "Hello"]
    assert len(set(measured)) == len(measured) == 1 + len(cores) / 2


async def test_the_figures_of_two_targets() -> None:
    report = await run(FakeTarget("a", 0.01), FakeTarget("b", 0.04), groups=("decode", "prefill", "clients"))
    decode = report.find("decode, one stream", "rate")
    assert decode is not None
    assert [spread.median for spread in decode.spread] == pytest.approx([100, 25])
    assert decode.ratio is not None
    assert decode.ratio.least == decode.ratio.greatest == pytest.approx(4)
    prompt = report.find("prompt of 512 tokens", "time to first token")
    assert prompt is not None
    assert prompt.ratio is not None
    assert prompt.ratio.median == pytest.approx(0.25)
    rate = report.find("16 clients, 128 in, 128 out", "output tokens")
    assert rate is not None
    assert rate.spread[0].median == pytest.approx(16 * 128 / 1.28)
    gap = report.find("16 clients, 128 in, 128 out", "between tokens, p99")
    assert gap is not None
    assert gap.spread[1].median == pytest.approx(40)


async def test_shares_are_of_what_the_machine_reached_in_the_same_run() -> None:
    peaks = iter([3e9, 5e9, 4e9])
    target = FakeTarget("a", 0.01, cost=TokenCost(weights=900, kv_per_token=1, operations=2_000_000))
    wanted = dataclasses.replace(
        plan(target, groups=("decode", "prefill", "clients"), rounds=3), integer_peak=lambda _: next(peaks)
    )
    report = await measure(wanted, lambda _: None)
    decode = report.find("decode, one stream", "rate")
    assert decode is not None
    # 100 tokens a second, each with 900 bytes of weights and 96 tokens of context.
    assert decode.achieved == (pytest.approx(100 * 996),)
    assert decode.share == (pytest.approx(100 * 996 / report.limits.read.greatest),)
    assert decode.ratio is None
    prompt = report.find("prompt of 512 tokens", "prompt tokens")
    assert prompt is not None
    # 512 tokens in a hundredth of a second; the best round's peak is the limit.
    assert prompt.achieved == (pytest.approx(51_200 * 2e6),)
    assert prompt.share == (pytest.approx(51_200 * 2e6 / 5e9),)
    assert prompt.load(0) == ", 102 GOP/s, 2048%"
    clients = report.find("4 clients, 128 in, 128 out", "output tokens")
    assert clients is not None
    assert (clients.bound, clients.achieved, clients.load(0)) == (None, (None,), "")


async def test_without_a_peak_there_is_no_share_of_it() -> None:
    target = FakeTarget("a", 0.01, cost=TokenCost(weights=900, operations=2_000_000))
    wanted = dataclasses.replace(plan(target, groups=("prefill",), rounds=1), integer_peak=lambda _: None)
    report = await measure(wanted, lambda _: None)
    prompt = report.find("prompt of 512 tokens", "prompt tokens")
    assert prompt is not None
    assert (report.limits.peak, prompt.share, prompt.load(0)) == (None, (None,), ", 102 GOP/s")


async def test_the_peak_is_measured_only_where_something_is_a_share_of_it() -> None:
    def fail(_: int) -> float:
        raise AssertionError("nobody wants to know")

    wanted = dataclasses.replace(plan(FakeTarget("a", 1), groups=("decode",), rounds=1), integer_peak=fail)
    assert (await measure(wanted, lambda _: None)).limits.peak is None


async def test_a_long_prompt_among_streams() -> None:
    target = IntrudedTarget("a", 0.001)
    report = await run(target, groups=("intrusion",), rounds=1)
    values = {figure.metric: figure.spread[0].median for figure in report.figures}
    assert values == {
        "between tokens of the streams, p99, before": pytest.approx(1),
        "between tokens of the streams, p99, during": pytest.approx(3),
        "during / before": pytest.approx(3),
        "time to first token of the prompt, alone": pytest.approx(0.1),
        "time to first token of the prompt, among streams": pytest.approx(0.15),
        "among streams / alone": pytest.approx(1.5),
    }


class IntrudedTarget(FakeTarget):
    """Its streams slow down to a third from 0.2 s on, once they meet a prompt; that comes then and takes 0.15 s."""

    async def generate(self, prompt: str, max_tokens: int, *, reuse_prefix: bool = False) -> Sample:
        sample = await super().generate(prompt, max_tokens, reuse_prefix=reuse_prefix)
        prompts = [text for text in self.prompts if len(text.split()) > 4000]
        if max_tokens == 1 and sample.prompt_tokens > 4000:
            begin, seconds = (0.0, 0.1) if len(prompts) == 1 else (0.2, 0.15)
            return dataclasses.replace(sample, start=begin, arrivals=(begin + seconds,), end=begin + seconds)
        streams = sum(20 < len(text.split()) < 40 for text in self.prompts)
        if max_tokens == 512 and streams > 8:
            arrivals = [time if time <= 0.2 else 0.2 + 3 * (time - 0.2) for time in sample.arrivals]
            return dataclasses.replace(sample, arrivals=tuple(arrivals), end=arrivals[-1])
        return sample


async def test_a_prefix_may_be_reused_where_it_is_shared_and_nowhere_else() -> None:
    target = FakeTarget("a", 1)
    await run(target, groups=("decode", "prefix"), rounds=1)
    assert sum(what == "reuse" for _, what in target.diary) == 2 + 8
    shared = target.prompts[-10:]
    assert shared[0].split()[:900] == shared[1].split()[:900]
    assert shared[2].split()[:900] == shared[9].split()[:900] != shared[0].split()[:900]
    assert len(set(shared)) == 10


def test_only_what_every_target_can_do_is_chosen() -> None:
    plain, startable = FakeTarget("a", 1), FakeTarget("b", 1, can_start=True, pid=1)
    assert {workload.group for workload in choose_workloads((), [startable])} >= {"start", "memory"}
    assert not {workload.group for workload in choose_workloads((), [plain, startable])} & {"start", "memory"}
    with pytest.raises(UsageError, match="Nothing of start can be measured"):
        choose_workloads(("start",), [plain])
    with pytest.raises(UsageError, match="no workload `fly`") as error:
        check_groups(("decode", "fly"))
    assert "prefill" in (error.value.hint or "")


async def test_a_start_is_measured_on_a_fresh_process() -> None:
    target = FakeTarget("a", 0.5, can_start=True)
    report = await run(target, groups=("start",))
    seconds, memory = report.figures
    assert (seconds.spread[0].median, memory.spread[0].median) == (0.5, 2.0)
    assert sum(what == "start, 31 words" for _, what in target.diary) == 3
