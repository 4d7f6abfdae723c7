"""The sampler against NumPy: the same distribution, the same edges, and draws that depend on nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cupola.engine.native import native

DRAWS = 20_000


def sample(
    logits: np.ndarray,
    count: int = 1,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 7,
) -> list[int]:
    row = np.ascontiguousarray(logits, dtype=np.float32)
    return list(native("testing.sample")(row, temperature, top_k, top_p, min_p, seed, count))


def expected_probabilities(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float
) -> np.ndarray:
    """What the draw should follow, by a full sort in float64."""
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    order = np.lexsort((np.arange(len(logits)), -logits))
    kept = order[: top_k or None]
    shares = weights[kept] / weights[kept].sum()
    # The fewest whose sum reaches top_p.
    kept = kept[: int(np.searchsorted(np.cumsum(shares), top_p - 1e-12)) + 1]
    kept = kept[weights[kept] >= min_p]
    probabilities = np.zeros(len(logits))
    probabilities[kept] = weights[kept] / weights[kept].sum()
    return probabilities


def chi_square_is_plausible(drawn: list[int], probabilities: np.ndarray) -> bool:
    """Pearson's test with rare tokens pooled; the limit is six standard deviations of the statistic."""
    counts = np.bincount(drawn, minlength=len(probabilities)).astype(float)
    assert not counts[probabilities == 0].any(), "a token that was filtered out"
    expected = probabilities * len(drawn)
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    freedom = max(1, len(wanted) - 1)
    return bool(statistic < freedom + 6 * np.sqrt(2 * freedom))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0),
        (0.5, 0, 1.0, 0.0),
        (2.0, 0, 1.0, 0.0),
        (1.0, 1, 1.0, 0.0),
        (1.0, 5, 1.0, 0.0),
        (1.0, 300, 1.0, 0.0),
        (1.0, 5000, 1.0, 0.0),
        (1.0, 0, 0.9, 0.0),
        (1.5, 0, 0.3, 0.0),
        (1.0, 0, 0.999, 0.0),
        (1.0, 0, 1e-9, 0.0),
        (1.0, 0, 1.0, 0.05),
        (1.0, 50, 0.8, 0.0),
        (1.3, 40, 0.95, 0.1),
        (1.0, 0, 0.9, 0.2),
    ],
)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_draws_follow_the_distribution(size: int, temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    logits = np.random.default_rng(size).normal(scale=2.5, size=size).astype(np.float32)
    drawn = sample(logits, DRAWS, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    probabilities = expected_probabilities(logits, temperature, top_k, top_p, min_p)
    assert chi_square_is_plausible(drawn, probabilities)


@pytest.mark.parametrize("top_p", [0.2, 0.9, 0.9999])
def test_top_p_of_a_flat_large_vocabulary(top_p: float) -> None:
    logits = np.random.default_rng(3).normal(scale=0.1, size=49_152).astype(np.float32)
    drawn = sample(logits, 300, top_p=top_p)
    probabilities = expected_probabilities(logits, 1.0, 0, top_p, 0.0)
    # A token at the very edge may fall on either side by rounding.
    order = np.argsort(-logits, kind="stable")
    edge = order[np.count_nonzero(probabilities) - 3 : np.count_nonzero(probabilities) + 3]
    assert all(probabilities[token] > 0 or token in edge for token in drawn)
    assert len(set(drawn)) > 200


def test_greedy_takes_the_largest_and_the_lowest_id_among_equals() -> None:
    logits = np.zeros(1000, np.float32)
    assert sample(logits, temperature=0.0) == [0]
    logits[[321, 700, 999]] = 3.5
    assert sample(logits, temperature=0.0) == [321]
    assert sample(logits, 50, top_k=1) == [321] * 50
    assert sample(-np.arange(10, dtype=np.float32) - 1e30, temperature=0.0) == [0]


def test_top_k_among_equals_keeps_the_lower_ids() -> None:
    assert set(sample(np.zeros(500, np.float32), 2000, top_k=3)) == {0, 1, 2}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 63, 64, 99])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_logit_that_is_not_finite_yields_no_token(bad: float, at: int, temperature: float) -> None:
    logits = np.zeros(100, np.float32)
    logits[at] = bad
    assert sample(logits, temperature=temperature) == [-1]


def test_draws_depend_on_seed_and_position_only() -> None:
    logits = np.random.default_rng(1).normal(size=512).astype(np.float32)
    assert sample(logits, 200, seed=5) == sample(logits, 200, seed=5)
    assert sample(logits, 200, seed=5) != sample(logits, 200, seed=6)
    assert sample(logits, 50, seed=-(2**63)) == sample(logits, 50, seed=-(2**63))


def test_neighbouring_seeds_and_positions_are_independent() -> None:
    logits = np.zeros(4, np.float32)
    rows = np.array([sample(logits, 1000, seed=seed) for seed in range(20)])
    for table in (rows[:-1] * 4 + rows[1:], rows[:, :-1] * 4 + rows[:, 1:]):
        assert chi_square_is_plausible(table.ravel().tolist(), np.full(16, 1 / 16))


def test_extreme_logits_and_temperatures_stay_within_the_vocabulary() -> None:
    logits = np.array([3e38, -3e38, 0, 1], np.float32)
    for temperature in (1e-30, 1e-5, 1.0, 1e30):
        assert set(Counter(sample(logits, 100, temperature=temperature, top_p=0.99))) <= {0, 1, 2, 3}
    assert sample(logits, 20, temperature=1.0) == [0] * 20
