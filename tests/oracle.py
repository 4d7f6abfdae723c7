"""What the scripted model generates, computed without it: the oracle of every exactness test.

The rule is that of cpp/model/scripted_model.h. Use: `from oracle import Oracle` (tests/ is on the path).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Oracle:
    """The knobs of `cupola.engine.native.scripted` that decide tokens."""

    first_id: int = 0
    num_ids: int = 256
    eos_id: int | None = None
    eos_every: int = 0

    def next(self, history: Sequence[int]) -> int:
        """The token after `history`."""
        h = 2166136261
        for token in history:
            h = ((h ^ token) * 16777619) & 0xFFFF_FFFF
        r = h >> 16
        if self.eos_id is not None and self.eos_every and r % self.eos_every == 0:
            return self.eos_id
        return self.first_id + r % self.num_ids

    def generate(self, prompt: Sequence[int], max_tokens: int, stop_ids: Sequence[int] = ()) -> tuple[list[int], str]:
        """The greedy tokens after `prompt`, and the finish reason: "stop" (the stop id left out) or "length"."""
        history = list(prompt)
        for _ in range(max_tokens):
            token = self.next(history)
            if token in stop_ids:
                return history[len(prompt) :], "stop"
            history.append(token)
        return history[len(prompt) :], "length"
