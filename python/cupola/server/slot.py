"""One model of a server, from its name to its engine and back: unloaded, loading, loaded, unloading.

Who uses the model holds a lease, and a model with a lease stays. One that nobody has used for a while gives its memory
back, and is loaded again for the next request, which waits. Belongs to one event loop; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol

from cupola.engine.histogram import HistogramCounts
from cupola.engine.report import RequestReport
from cupola.engine.request import EngineStats
from cupola.errors import CupolaError, EngineError, OverloadedError
from cupola.protocol.models import Capability
from cupola.server.meter import RequestMeter

State = Literal["unloaded", "loading", "loaded", "unloading"]

_GAUGES = frozenset(
    {"running", "waiting", "pages_total", "pages_free", "pages_cached", "pages_pinned", "last_step_age"}
)
_RETRY_SECONDS = 5.0  # a model that could not be loaded is not tried again before

_LOG = logging.getLogger("cupola.server")


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """What the operator wants to see of an open model.

    Args:
        kind: what it is for: `generate`, `embed`.
        quant: how its weights are stored.
        backend: which engine runs it.
        context: most tokens of one request.
        cache: the KV cache in a few words; empty without one.
        concurrency: most requests at once.
    """

    kind: str
    architecture: str
    quant: str
    backend: str
    context: int
    cache: str
    concurrency: int


class Served(Protocol):
    """A model that is open: an engine of any kind, and the names under which it answers."""

    @property
    def names(self) -> tuple[str, ...]:
        """At least one; the first is the one that responses carry."""

    @property
    def max_model_len(self) -> int:
        """Most tokens of one request."""

    @property
    def page_size(self) -> int | None:
        """Token slots a page of the KV cache; None for an engine without one."""

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What may be asked of it."""

    @property
    def summary(self) -> ModelSummary:
        """What the operator wants to see of it."""

    def stats(self) -> EngineStats:
        """Counters and gauges of the engine now."""

    def histograms(self) -> Mapping[str, HistogramCounts]:
        """What the engine measures of its steps, by name."""

    def watch(self, on_end: Callable[[RequestReport], None]) -> None:
        """Have every request's numbers reported when it ends."""

    def fault(self) -> str | None:
        """Why the engine cannot work, or None while it can."""

    def retire(self) -> None:
        """On the event loop: refuse requests, fail those that run."""

    def release(self) -> None:
        """In any thread: stop the engine and free its memory. Blocks."""


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """How a model may come and go.

    Args:
        idle_seconds: how long a model without requests keeps its memory; None: for ever.
        max_waiting: most requests that wait for it to be loaded.
    """

    idle_seconds: float | None = None
    max_waiting: int = 1024


class ModelSlot:
    """A place for one model.

    Args:
        names: under which it answers; the first is the one that responses and metrics carry.
        opener: opens the model; blocks, and is called in any thread.
    """

    def __init__(self, names: Sequence[str], opener: Callable[[], Served], limits: SlotLimits | None = None) -> None:
        self.names = tuple(names)
        self.created = int(time.time())
        self.max_model_len: int | None = None  # known once it was loaded, like the next
        self.capabilities: tuple[Capability, ...] | None = None
        self._opener = opener
        self._limits = limits or SlotLimits()
        self._served: Served | None = None
        self._loading: asyncio.Task[None] | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: tuple[float, CupolaError] | None = None
        self._leases = 0
        self._waiting = 0
        self.meter = RequestMeter()
        self._past = EngineStats()
        self._past_histograms: Mapping[str, HistogramCounts] = {}

    @classmethod
    def holding(cls, served: Served) -> ModelSlot:
        """A place for a model that is open already, and stays."""
        slot = cls(served.names, lambda: served)
        slot.load_now()
        return slot

    @property
    def name(self) -> str:
        """The name that responses and metrics carry."""
        return self.names[0]

    @property
    def waiting(self) -> int:
        """Requests that wait for it to be loaded."""
        return self._waiting

    @property
    def served(self) -> Served | None:
        """The model while it is loaded."""
        return self._served

    @property
    def state(self) -> State:
        """Where it is between its name and its engine."""
        if self._served is not None:
            return "loaded"
        if self._loading is not None:
            return "loading"
        return "unloaded" if self._unloading is None else "unloading"

    def load_now(self) -> None:
        """Loads it in this thread, before there are any requests, and learns all of its names. Raises what the opener
        raises."""
        served = self._opener()
        self.names = served.names
        self._put(served)

    async def load(self) -> None:
        """Waits until it is loaded; the first who waits has it loaded. Being cancelled ends the waiting only.

        Raises:
            OverloadedError: too many wait already.
            CupolaError: it cannot be opened.
        """
        if self._served is not None:
            return
        if self._waiting >= self._limits.max_waiting:
            raise OverloadedError(f"{self._waiting} requests are waiting for `{self.name}` to be loaded")
        if self._loading is None:
            self._raise_recent_failure()
            self._loading = asyncio.create_task(self._load())
        self._waiting += 1
        try:
            await asyncio.shield(self._loading)
        finally:
            self._waiting -= 1
        self._raise_recent_failure()

    @contextlib.contextmanager
    def lease(self) -> Iterator[Served]:
        """The loaded model, which stays so for as long as the block lasts."""
        assert self._served is not None, "load it first"
        self._leases += 1
        self._stop_timer()
        try:
            yield self._served
        finally:
            self._leases -= 1
            self.start_timer()

    def fault(self) -> str | None:
        """Why the loaded model's engine cannot work, or None."""
        return None if self._served is None else self._served.fault()

    def stats(self) -> EngineStats:
        """Gauges of the engine now, and counters of this one and all those before it."""
        return self._past if self._served is None else _continued(self._past, self._served.stats())

    def histograms(self) -> Mapping[str, HistogramCounts]:
        """What this engine and those before it measured, by name; empty for a model that was never loaded."""
        if self._served is None:
            return self._past_histograms
        past = self._past_histograms
        now = self._served.histograms()
        return {name: counts + past[name] if name in past else counts for name, counts in now.items()}

    async def close(self) -> None:
        """Frees the model, whatever is under way."""
        self._stop_timer()
        for task in (self._loading, self._unloading):
            if task is not None:
                await asyncio.wait((task,))
        self._stop_timer()
        if self._served is not None:
            await self._unload(self._give_up())

    async def _load(self) -> None:
        if self._unloading is not None:
            await asyncio.wait((self._unloading,))
        started = time.perf_counter()
        try:
            served = await asyncio.to_thread(self._opener)
        except CupolaError as error:
            _LOG.error("`%s` cannot be loaded: %s", self.name, error.message)
            self._failure = (time.monotonic(), error)
        except Exception as error:  # those who wait are told; the next request tries again
            _LOG.exception("`%s` cannot be loaded", self.name)
            self._failure = (time.monotonic(), EngineError(f"Opening it failed: {type(error).__name__}: {error}"))
        else:
            self._put(served)
            self.start_timer()
            _LOG.info("`%s` was loaded in %.1f s", self.name, time.perf_counter() - started)
        finally:
            self._loading = None

    def _put(self, served: Served) -> None:
        self._served = served
        served.watch(self.meter.observe)
        self._failure = None
        self.max_model_len = served.max_model_len
        self.capabilities = served.capabilities

    def _raise_recent_failure(self) -> None:
        if self._failure is not None and time.monotonic() - self._failure[0] < _RETRY_SECONDS:
            raise self._failure[1].with_traceback(None)

    def start_timer(self) -> None:
        """Nobody uses the model from now on; needed from outside only where it was loaded by `load_now`."""
        if self._limits.idle_seconds is not None and self._leases == 0 and self._served is not None:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._on_idle)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_idle(self) -> None:
        _LOG.info("`%s` had no request for %g s: it is unloaded", self.name, self._limits.idle_seconds)
        self._unloading = asyncio.create_task(self._unload(self._give_up()))

    def _give_up(self) -> list[Served]:
        """The model in a list of its own, which can be emptied: no one else shall keep it alive."""
        assert self._served is not None
        given = [self._served]
        self._past, self._past_histograms = _at_rest(self.stats()), self.histograms()
        self._served = None
        return given

    async def _unload(self, given: list[Served]) -> None:
        given[0].retire()
        try:
            await asyncio.to_thread(_free, given)
        finally:
            self._unloading = None


def _free(given: list[Served]) -> None:
    given.pop().release()
    gc.collect()  # an engine and its mailroom know each other
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what was freed in small pieces goes back to the system, too


def _continued(past: EngineStats, now: EngineStats) -> EngineStats:
    """What is counted goes on from what was counted before."""
    values = {field.name: getattr(now, field.name) for field in fields(EngineStats)}
    return EngineStats(
        **{name: value if name in _GAUGES else getattr(past, name) + value for name, value in values.items()}
    )


def _at_rest(stats: EngineStats) -> EngineStats:
    """The counters alone."""
    values = {field.name: getattr(stats, field.name) for field in fields(EngineStats)}
    return EngineStats(**{name: value for name, value in values.items() if name not in _GAUGES})
