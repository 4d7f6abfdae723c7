"""An engine behind endpoints, whatever it is for: what every kind of model has. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.histogram import HistogramCounts
from cupola.engine.report import RequestReport
from cupola.engine.request import EngineStats
from cupola.protocol.errors import model_not_found

_HANG_SECONDS = 120.0  # far longer than any step; a thread that has work and is silent for so long is stuck


@dataclass(frozen=True, slots=True)
class ServedEngine:
    """One engine under one or more names; the first is the one that responses carry.

    Args:
        engine: a started engine.
        names: at least one.
        created: Unix time.
    """

    engine: AsyncEngine
    names: tuple[str, ...]
    created: int

    @property
    def name(self) -> str:
        """The name that responses carry."""
        return self.names[0]

    @property
    def max_model_len(self) -> int:
        """Most tokens of one request."""
        return self.engine.config.max_context

    def stats(self) -> EngineStats:
        """Counters and gauges of the engine now."""
        return self.engine.stats()

    def histograms(self) -> Mapping[str, HistogramCounts]:
        """What the engine measures of its steps, by name."""
        return self.engine.histograms()

    def watch(self, on_end: Callable[[RequestReport], None]) -> None:
        """Have every request's numbers reported when it ends."""
        self.engine.watch(on_end)

    def retire(self) -> None:
        """The first half of closing the engine, on the event loop."""
        self.engine.retire()

    def release(self) -> None:
        """The second half: frees its memory. Blocks."""
        self.engine.release()

    def check_name(self, name: str) -> None:
        """Raises ApiError 404 for a name that is not served."""
        if name not in self.names:
            raise model_not_found(name, self.names)

    def fault(self) -> str | None:
        """Why the engine cannot work, or None while it can."""
        if not self.engine.healthy:
            return f"The engine has failed: {self.engine.failure or 'it was closed'}."
        stats = self.engine.stats()
        if stats.running + stats.waiting > 0 and stats.last_step_age > _HANG_SECONDS:
            return f"The engine has given no sign of life for {stats.last_step_age:.0f} s."
        return None
