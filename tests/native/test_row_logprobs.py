"""Log-probabilities against NumPy's log-softmax of the raw rows, whatever was asked of the draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from row_sampler import log_softmax, request_of, sample_rows

from cupola.engine.request import SamplingParams

GREEDY = SamplingParams(temperature=0.0, seed=0, max_tokens=1000)


def rows_of(count: int, vocab: int, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(vocab).normal(scale=scale, size=(count, vocab)).astype(np.float32)


@pytest.mark.parametrize("vocab", [1, 5, 64, 65, 1000])
@pytest.mark.parametrize("top", [0, 1, 20])
@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        SamplingParams(temperature=2.0, top_p=0.9, seed=4, max_tokens=10),
        replace(GREEDY, frequency_penalty=2.0, logit_bias={0: 50.0}),
        SamplingParams(temperature=1.0, allowed_token_ids=(0,), seed=0, max_tokens=10),
    ],
)
def test_they_are_of_the_raw_distribution(sampling: SamplingParams, top: int, vocab: int) -> None:
    rows = rows_of(12, vocab)
    sampled = sample_rows(request_of(replace(sampling, logprobs=top)), rows)
    assert len(sampled.logprobs) == len(sampled.tokens) == 12
    for token, entries, row, expected in zip(sampled.tokens, sampled.logprobs, rows, log_softmax(rows), strict=True):
        order = np.lexsort((np.arange(vocab), -row))
        assert entries[0].token_id == token
        assert entries[0].rank == 1 + list(order).index(token)
        assert [entry.token_id for entry in entries[1:]] == list(order[:top])
        assert [entry.rank for entry in entries[1:]] == list(range(1, min(top, vocab) + 1))
        found = [entry.logprob for entry in entries]
        assert found == pytest.approx([expected[entry.token_id] for entry in entries], abs=2e-6)


def test_none_are_given_unless_asked_for() -> None:
    assert sample_rows(request_of(GREEDY), rows_of(3, 10)).logprobs == []


def test_equals_are_ranked_by_their_ids() -> None:
    sampled = sample_rows(request_of(replace(GREEDY, logprobs=3, allowed_token_ids=(70,))), np.zeros((1, 130)))
    assert [(entry.token_id, entry.rank) for entry in sampled.logprobs[0]] == [(70, 71), (0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4])
def test_flat_and_steep_rows_lose_no_digits(scale: float) -> None:
    rows = rows_of(4, 49_152, scale)
    sampled = sample_rows(request_of(replace(GREEDY, logprobs=20)), rows)
    expected = log_softmax(rows)
    for entries, row in zip(sampled.logprobs, expected, strict=True):
        for entry in entries:
            assert entry.logprob == pytest.approx(row[entry.token_id], rel=1e-6, abs=2e-6)
