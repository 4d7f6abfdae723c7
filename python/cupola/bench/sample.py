"""What one request looked like from outside: when its pieces came, and how many tokens they held."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered request. All times are seconds of one monotonic clock.

    Args:
        start: the request was about to be sent (before its connection was opened).
        arrivals: a piece of the answer with text came; at least one.
        end: the piece with the finish reason came.
        prompt_tokens, completion_tokens: as the server's `usage` counts them.
    """

    start: float
    arrivals: tuple[float, ...]
    end: float
    prompt_tokens: int
    completion_tokens: int

    @property
    def first_token_seconds(self) -> float:
        """Time to first token."""
        return self.arrivals[0] - self.start

    @property
    def decode_rate(self) -> float:
        """Tokens a second after the first one; 0 when there was one token only."""
        seconds = self.end - self.arrivals[0]
        return (self.completion_tokens - 1) / seconds if seconds > 0 else 0.0

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds between pieces: one token each, unless the server put several into one piece."""
        return tuple(after - before for before, after in pairwise(self.arrivals))

    def gaps_within(self, begin: float, end: float) -> tuple[float, ...]:
        """Those gaps that a span of time touches."""
        return tuple(after - before for before, after in pairwise(self.arrivals) if before < end and after > begin)
