"""How far the predictions of one compiled library are from those of another on the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from numerics.sequence import Sequences

CHUNK = 50  # tokens a step


@dataclass(frozen=True)
class Divergence:
    """Kullback-Leibler divergence, in nats a token, and the share of tokens with the same best successor."""

    tokens: int
    mean_kl: float
    p99_kl: float
    same_best_token: float


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def divergence(reference: Sequences, other: Sequences, ids: Sequence[int]) -> Divergence:
    """Feeds `ids` to both, which have no tokens yet; KL(reference, other)."""
    found, same_best = [], 0
    for at in range(0, len(ids), CHUNK):
        p = log_probabilities(reference.step({0: ids[at : at + CHUNK]})[0])
        q = log_probabilities(other.step({0: ids[at : at + CHUNK]})[0])
        found.append((np.exp(p) * (p - q)).sum(axis=1))
        same_best += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
    each = np.concatenate(found)
    return Divergence(len(ids), float(each.mean()), float(np.quantile(each, 0.99)), same_best / len(ids))
