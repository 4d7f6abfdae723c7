"""The numbers of one server: the engine's counters, read when asked, and what the access layer saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cupola.engine.request import EngineStats
from cupola.server.record import RequestRecord

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)

_GAUGES = (
    ("running", "cupola_num_requests_running", "Requests in the engine's batch."),
    ("waiting", "cupola_num_requests_waiting", "Requests in the engine's queue."),
    ("pages_total", "cupola_kv_pages", "Pages of the KV cache."),
    ("pages_free", "cupola_kv_pages_free", "Pages of the KV cache that no request holds."),
    ("pages_cached", "cupola_kv_pages_cached", "Pages of the KV cache that can be found by their tokens."),
    ("pages_pinned", "cupola_kv_pages_pinned", "Pages of pinned prefixes."),
    ("last_step_age", "cupola_engine_heartbeat_age_seconds", "Time since the engine thread's last sign of life."),
)
_COUNTERS = (
    ("steps", "cupola_engine_steps", "Steps of the engine."),
    ("step_seconds", "cupola_engine_step_seconds", "Time spent in steps."),
    ("preemptions", "cupola_num_preemptions", "Requests that gave their pages back and started again."),
    ("prompt_tokens", "cupola_prompt_tokens", "Prompt tokens processed."),
    ("generated_tokens", "cupola_generation_tokens", "Tokens generated."),
    ("finished", "cupola_requests_finished", "Requests that ran to their end."),
    ("aborted", "cupola_requests_aborted", "Requests whose caller went away."),
    ("prefix_queries", "cupola_prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    ("prefix_hits", "cupola_prefix_cache_hits", "Prompt tokens found in the prefix cache."),
    ("prefix_evictions", "cupola_prefix_cache_evictions", "Pages that the prefix cache forgot to make room."),
    ("expired", "cupola_requests_expired", "Requests that were not done by their deadline."),
    ("failed", "cupola_requests_failed", "Requests that the engine lost."),
)


class Telemetry:
    """Counts in a registry of its own, so that two servers in one process do not mix."""

    def __init__(self, stats: Callable[[], EngineStats], known_paths: frozenset[str]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(stats))
        self._known_paths = known_paths
        self._requests = Counter(
            "cupola_http_requests", "Responses by path and status.", ("path", "status"), registry=self._registry
        )
        self._duration = Histogram(
            "cupola_e2e_request_latency_seconds",
            "Time from a generating request to the end of its response.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first_token = Histogram(
            "cupola_time_to_first_token_seconds",
            "Time from a generating request to its first token.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def observe(self, record: RequestRecord) -> None:
        """Counts one finished request. Unknown paths share one label: clients cannot make the metrics grow."""
        path = record.path if record.path in self._known_paths else "other"
        self._requests.labels(path, str(record.status)).inc()
        first_token = record.time_to_first_token
        if first_token is not None:
            self._first_token.observe(first_token)
            self._duration.observe(record.duration)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Reads the engine's snapshot when Prometheus asks, so that nothing is counted twice."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        for name, metric, text in _GAUGES:
            yield GaugeMetricFamily(metric, text, value=getattr(stats, name))
        for name, metric, text in _COUNTERS:
            yield CounterMetricFamily(metric, text, value=getattr(stats, name))
