"""How far predictions are from others: Kullback-Leibler divergence, perplexity. Knows logits, not who computed them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_ROWS = 16  # rows of logits worked on at once: a vocabulary of 262,144 in float64 takes 2 MiB each


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@dataclass
class Comparison:
    """Collects the predictions of two models on the same tokens, a piece at a time."""

    _kl: list[np.ndarray] = field(default_factory=list)
    _same: list[np.ndarray] = field(default_factory=list)
    _losses: tuple[list[np.ndarray], list[np.ndarray]] = field(default_factory=lambda: ([], []))

    def add(self, reference: np.ndarray, other: np.ndarray, targets: np.ndarray | None = None) -> None:
        """Logits [n, vocabulary] of both, and the tokens that followed: int [n], or [n - 1] at the end of a text."""
        for at in range(0, len(reference), _ROWS):
            part = slice(at, at + _ROWS)
            p, q = log_probabilities(reference[part]), log_probabilities(other[part])
            self._kl.append((np.exp(p) * (p - q)).sum(axis=1))
            self._same.append(p.argmax(axis=1) == q.argmax(axis=1))
            if targets is not None:
                follows = targets[part]
                for losses, found in zip(self._losses, (p, q), strict=True):
                    losses.append(-found[np.arange(len(follows)), follows])

    @property
    def tokens(self) -> int:
        """How many predictions were compared."""
        return sum(map(len, self._kl))

    @property
    def mean_kl(self) -> float:
        """KL(reference, other), nats a token."""
        return float(np.concatenate(self._kl).mean())

    @property
    def p99_kl(self) -> float:
        """What one token in a hundred exceeds."""
        return float(np.quantile(np.concatenate(self._kl), 0.99))

    @property
    def same_best_token(self) -> float:
        """The share of tokens with the same best successor."""
        return float(np.concatenate(self._same).mean())

    @property
    def perplexities(self) -> tuple[float, float]:
        """Of the reference and of the other, over the tokens that followed."""
        first, second = (float(np.exp(np.concatenate(losses).mean())) for losses in self._losses)
        return first, second
