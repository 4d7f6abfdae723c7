"""A target that answers at once, from a clock of its own, and writes down what happened to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cupola.bench.sample import Sample
from cupola.bench.target import Start, TokenCost
from cupola.errors import EngineError


@dataclass
class FakeTarget:
    """Answers with a token every `seconds` seconds; all events go to `diary`, which several targets may share.

    Args:
        dies_at: the request, counted from 1, at which it goes away; 0 never.
    """

    name: str
    seconds: float
    diary: list[tuple[str, str]] = field(default_factory=list)
    pid: int | None = None
    cost: TokenCost | None = None
    can_start: bool = False
    dies_at: int = 0
    suspended: bool = False
    prompts: list[str] = field(default_factory=list)

    async def generate(self, prompt: str, max_tokens: int, *, reuse_prefix: bool = False) -> Sample:
        assert not self.suspended, "a request to a suspended target"
        self.prompts.append(prompt)
        if len(self.prompts) == self.dies_at:
            raise EngineError(f"{self.name} closed the connection")
        self.diary.append((self.name, "reuse" if reuse_prefix else "ask"))
        arrivals = tuple(self.seconds * (place + 1) for place in range(max_tokens))
        return Sample(0.0, arrivals, arrivals[-1], len(prompt.split()) + 1, max_tokens)

    async def measure_start(self, prompt: str) -> Start:
        self.diary.append((self.name, f"start, {len(prompt.split())} words"))
        return Start(self.seconds, 2_000_000)

    def suspend(self) -> None:
        self.suspended = True
        self.diary.append((self.name, "suspend"))

    def resume(self) -> None:
        self.suspended = False
        self.diary.append((self.name, "resume"))
