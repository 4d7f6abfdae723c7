"""Divergences and perplexities of predictions, against the same in a few lines of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from cupola.quantize.divergence import Comparison, log_probabilities


def test_log_probabilities_add_up_to_one_however_large_logits_are() -> None:
    logits = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32) * 300
    np.testing.assert_allclose(np.exp(log_probabilities(logits)).sum(axis=1), 1)


def test_a_model_does_not_differ_from_itself() -> None:
    logits = np.random.default_rng(0).standard_normal((40, 11)).astype(np.float32)
    comparison = Comparison()
    comparison.add(logits, logits, np.zeros(40, int))
    assert (comparison.mean_kl, comparison.p99_kl, comparison.same_best_token) == (0, 0, 1)
    assert comparison.perplexities[0] == comparison.perplexities[1]


def test_pieces_are_one_text() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((50, 11)).astype(np.float32) for _ in range(2))
    ids = rng.integers(0, 11, 50)
    comparison = Comparison()
    for at in range(0, 50, 20):
        comparison.add(first[at : at + 20], second[at : at + 20], ids[at + 1 : at + 21])
    p, q = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) for logits in (first, second))
    kl = (p * np.log(p / q)).sum(axis=1)
    assert comparison.tokens == 50
    assert comparison.mean_kl == pytest.approx(kl.mean(), rel=1e-5)
    assert comparison.p99_kl == pytest.approx(np.quantile(kl, 0.99), rel=1e-5)
    assert comparison.same_best_token == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    losses = [-np.log(x[np.arange(49), ids[1:]]).mean() for x in (p, q)]
    assert comparison.perplexities == pytest.approx(tuple(np.exp(losses)), rel=1e-5)
