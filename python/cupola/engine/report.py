"""What is known of a request when it has ended: for whoever counts. Knows no metric and no endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from cupola.engine.request import FinishReason


@dataclass(frozen=True, slots=True)
class RequestReport:
    """One request of the engine; several may belong to one response.

    Args:
        prompt_tokens: of the prompt.
        cached_tokens: of these, found in the prefix cache.
        completion_tokens: generated, as far as they were delivered.
        finish: ABORT where its reader left, ERROR where it failed.
        first_token: `time.perf_counter` of its first token; None: it has none.
        ended: of its end.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish: FinishReason
    first_token: float | None
    ended: float

    @property
    def decode_seconds(self) -> float | None:
        """From the first token to the end; None without one."""
        return None if self.first_token is None else self.ended - self.first_token

    @property
    def seconds_per_token(self) -> float | None:
        """Of each token after the first; None without one."""
        if self.first_token is None or self.completion_tokens < 2:
            return None
        return (self.ended - self.first_token) / (self.completion_tokens - 1)
