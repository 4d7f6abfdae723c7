"""What can be measured: the interface that workloads see of a server or of an engine in this process."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Protocol

from cupola.bench.sample import Sample


@dataclass(frozen=True, slots=True)
class Start:
    """A cold start: seconds from the start of the process to the first token, and its memory then."""

    seconds: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What one token costs, as far as it is known.

    Args:
        weights: bytes of all weights, which a decoded token has to read once.
        kv_per_token: bytes of keys and values of one token of context, in the layers that see all of it; 0 if unknown.
        window_kv_per_token: the same in the layers that see only the last `window` tokens.
        operations: multiplications and additions that a token of a prompt takes in the layers' matrices: two for each
            weight. Neither attention nor the output matrix, which only the last token meets, are counted. 0 if unknown.
    """

    weights: int
    kv_per_token: int = 0
    operations: int = 0
    window_kv_per_token: int = 0
    window: int = 0

    def bytes_behind(self, context: float) -> float:
        """Bytes that a token reads which is decoded behind a context of so many tokens."""
        return self.weights + self.kv_per_token * context + self.window_kv_per_token * min(context, self.window)


class Target(Protocol):
    """One thing to measure. Requests may run at the same time; `suspend` and `resume` are called between rounds."""

    @property
    def name(self) -> str:
        """How the report calls it."""
        ...

    @property
    def pid(self) -> int | None:
        """The process whose memory is its memory, if known."""
        ...

    @property
    def cost(self) -> TokenCost | None:
        """What a token costs, if known."""
        ...

    @property
    def can_start(self) -> bool:
        """Whether `measure_start` is possible."""
        ...

    def generate(self, prompt: str, max_tokens: int, *, reuse_prefix: bool = False) -> Coroutine[None, None, Sample]:
        """Answer one prompt greedily, past the end of sequence where that can be asked for.

        Args:
            reuse_prefix: allow the server to use what it remembers of earlier prompts.

        Raises:
            CupolaError: the server refused, failed or went away.
        """
        ...

    async def measure_start(self, prompt: str) -> Start:
        """Start another process of the same kind, ask it for one token, end it."""
        ...

    def suspend(self) -> None:
        """Let it use no processor while something else is measured (where that is ours to do)."""
        ...

    def resume(self) -> None:
        """Undo `suspend`."""
        ...
