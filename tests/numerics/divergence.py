"""How far the predictions of one compiled library are from those of another on the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cupola.quantize.divergence import Comparison
from numerics.sequence import Sequences

CHUNK = 50  # tokens a step


@dataclass(frozen=True)
class Divergence:
    """Kullback-Leibler divergence, in nats a token, and the share of tokens with the same best successor."""

    tokens: int
    mean_kl: float
    p99_kl: float
    same_best_token: float


def divergence(reference: Sequences, other: Sequences, ids: Sequence[int]) -> Divergence:
    """Feeds `ids` to both, which have no tokens yet; KL(reference, other)."""
    comparison = Comparison()
    for at in range(0, len(ids), CHUNK):
        step = {0: ids[at : at + CHUNK]}
        comparison.add(reference.step(step)[0], other.step(step)[0])
    return Divergence(len(ids), comparison.mean_kl, comparison.p99_kl, comparison.same_best_token)
