"""Sampling on a GPU against the engine's own sampler: the same tokens from the same rows and random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
from gpu_cases import NEEDS_GPU, Executing, Kernel, build

from cupola.engine.request import SamplingParams
from cupola.kernels.gpu.sample_row import PART, Rows
from cupola.kernels.gpu.sampling import NOT_FINITE, NOTHING_ALLOWED, sample
from native.row_sampler import log_softmax, request_of, sample_rows

pytestmark = NEEDS_GPU

VOCABULARY = 2 * PART + 808  # three parts, of which the last one ends early
ROWS = Rows(VOCABULARY, VOCABULARY + 8)
GOLDEN = 0x9E3779B97F4A7C15
WORD = (1 << 64) - 1


def mixed(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & WORD
    return x ^ (x >> 31)


def uniform(seed: int, position: int) -> float:
    """As cpp/support/rng.h."""
    stream = mixed((seed + GOLDEN) & WORD)
    return (mixed((stream + (position + 1) * GOLDEN) & WORD) >> 11) * 2.0**-53


@dataclass(frozen=True)
class Asked:
    """What one row asks for.

    Args:
        edits: (token, added, divisor, taken away).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    uniform: float = 0.5
    given: int = -1
    mask: np.ndarray | None = None  # bool [vocabulary]
    edits: Sequence[tuple[int, float, float, float]] = field(default=())
    reported: bool = False


@dataclass(frozen=True)
class Given:
    token: int
    rank: int
    logprobs: list[tuple[int, float]]  # the token's own, then the most probable ones


@cache
def kernel_on(kind: str) -> Kernel:
    assert kind == Executing.kind
    return build(sample(ROWS))


def as_int(*values: float) -> list[int]:
    return list(np.array(values, np.float32).view(np.int32))


def run(logits: np.ndarray, asked: Sequence[Asked], tops: int = 0) -> list[Given]:
    """One call for rows [m, vocabulary]."""
    m, words, t = len(asked), -(-VOCABULARY // 32), tops + 1
    settings, masks, edits = [], [], [0, 0, *as_int(0, 1, 0)]
    for i, row in enumerate(asked):
        greedy = row.temperature == 0 or row.top_k == 1
        scale = 0.0 if greedy else 1 / np.float32(row.temperature)
        settings += as_int(scale, row.top_p, row.min_p, 0.0 if greedy else row.uniform)
        settings += [row.top_k, -1 if row.mask is None else words * (len(masks) // words), row.given, 0]
        if row.mask is not None:
            bits = np.zeros(words * 32, bool)
            bits[:VOCABULARY] = row.mask
            masks += list(np.packbits(bits, bitorder="little").view(np.int32))
        for token, *numbers in row.edits:
            edits += [i, token, *as_int(*numbers)]
    sampled = [i for i, row in enumerate(asked) if row.temperature > 0 and row.top_k != 1]
    by_count = [i for i in sampled if 0 < asked[i].top_k < VOCABULARY]
    by_mass = [i for i in sampled if asked[i].top_p < 1]
    reported = [i for i, row in enumerate(asked) if row.reported]
    padded = np.full((m, ROWS.stride), np.nan, np.float32)
    padded[:, :VOCABULARY] = logits
    lists = [settings, by_count, by_mass, reported, masks or [0], edits, [0] * t]
    out = np.full((m, 1 + 2 * t), -7, np.int32)
    parts = ROWS.parts
    floats = [
        (m, ROWS.stride),
        (m, parts, 4),
        (m, 4),
        (m, parts, 2),
        (2, m, parts, 16),
        (m,),
        (t, m, parts),
        (m, parts),
    ]
    changed, part_known, known, measured, sums, targets, best, ahead = (np.full(s, np.nan, np.float32) for s in floats)
    thresholds, states, best_ids = (np.full(s, -1, np.int32) for s in ((m, 2), (9, m, 2), (t, m, parts)))
    ints = [np.array(values, np.int32) for values in lists]
    scratch = [changed, part_known, known, thresholds, measured, sums, states, targets, best, best_ids, ahead]
    kernel_on(Executing.kind)(padded, *ints, out, *scratch)
    return [
        Given(int(row[1]), int(row[0]), list(zip(row[1::2].tolist(), row[2::2].view(np.float32).tolist(), strict=True)))
        for row in out
    ]


def rows(count: int, seed: int = 0, spread: float = 4.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((count, VOCABULARY)) * spread).astype(np.float32)


def by_host(params: SamplingParams, row: np.ndarray) -> int:
    """The engine's token for the first position behind a prompt of one."""
    result = sample_rows(request_of(params), row[None])
    assert not result.error
    return result.tokens[0]


CASES = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.7, top_k=1),
    SamplingParams(temperature=1.3, top_k=40),
    SamplingParams(temperature=1.0, top_p=0.9),
    SamplingParams(temperature=0.8, top_k=200, top_p=0.7),
    SamplingParams(temperature=1.0, min_p=0.02),
    SamplingParams(temperature=1.5, top_k=VOCABULARY - 1, top_p=0.999, min_p=1e-4),
    SamplingParams(temperature=1e-6),
]


@pytest.mark.parametrize("spread", [0.05, 1.0, 4.0])
def test_tokens_are_those_of_the_engines_own_sampler(spread: float) -> None:
    repeats = 8
    params = [replace(case, seed=10 * i + k, max_tokens=1) for k, case in enumerate(CASES) for i in range(repeats)]
    logits = rows(len(params), 1, spread)
    asked = [
        Asked(p.temperature if p.temperature > 1e-5 else 0.0, p.top_k, p.top_p, p.min_p, uniform(p.seed, 1))
        for p in params
    ]
    found = [given.token for given in run(logits, asked)]
    expected = [by_host(p, row) for p, row in zip(params, logits, strict=True)]
    # A random number that falls on the edge of two tokens may give either: sums are float32 here.
    differing = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    assert len(differing) <= 1, [(params[i], found[i], expected[i]) for i in differing]
    assert not any(params[i].temperature < 1e-5 or params[i].top_k == 1 for i in differing)


def test_rows_are_changed_as_asked_and_reported_as_they_were() -> None:
    logits = rows(4, 2)
    best = np.argsort(-logits, axis=1, kind="stable")
    mask = np.zeros(VOCABULARY, bool)
    mask[[5, PART + 7, VOCABULARY - 1]] = True
    asked = [
        Asked(temperature=0.0, edits=[(int(best[0, 0]), 0, 1, np.finfo(np.float32).max)], reported=True),
        Asked(temperature=0.0, mask=mask),
        Asked(temperature=0.0, mask=mask, edits=[(9, 100, 1, 0), (5, 90, 2, 3)], reported=True),
        Asked(given=int(best[3, 2]), reported=True),
    ]
    found = run(logits, asked, tops=3)
    allowed = np.flatnonzero(mask)
    assert found[0].token == best[0, 1]
    assert found[1].token == allowed[logits[1, allowed].argmax()]
    assert found[2].token == 5  # and not 9, which is banned whatever is added to it
    assert found[3].token == best[3, 2]
    expected = log_softmax(logits)
    for i in (0, 2, 3):
        names = [found[i].token, *best[i, :3]]
        assert [token for token, _ in found[i].logprobs] == names
        np.testing.assert_allclose([value for _, value in found[i].logprobs], expected[i, names], atol=2e-5)
        assert found[i].rank == 1 + np.flatnonzero(best[i] == found[i].token)[0]


def test_the_lower_of_equals_comes_first() -> None:
    logits = np.zeros((4, VOCABULARY), np.float32)
    asked = [
        Asked(temperature=0.0, reported=True),
        Asked(top_k=PART + 3, uniform=1 - 2**-24),
        Asked(top_p=0.5, uniform=0.75),
        Asked(uniform=0.5, reported=True),
    ]
    found = run(logits, asked, tops=2)
    assert [given.token for given in found] == [0, PART + 2, int(0.375 * VOCABULARY), VOCABULARY // 2]
    assert [token for token, _ in found[0].logprobs] == [0, 0, 1]
    assert found[3].rank == VOCABULARY // 2 + 1


def test_what_cannot_be_sampled_is_said() -> None:
    logits = rows(4, 3)
    logits[0, PART + 5] = np.nan
    logits[1, 3] = np.inf
    none = np.zeros(VOCABULARY, bool)
    asked = [Asked(), Asked(temperature=0.0, given=4, reported=True), Asked(mask=none), Asked(temperature=0.0)]
    found = [given.token for given in run(logits, asked)]
    assert found == [NOT_FINITE, NOT_FINITE, NOTHING_ALLOWED, logits[3].argmax()]
