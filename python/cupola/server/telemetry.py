"""The numbers of one server as Prometheus scrapes them: of its models, and of its responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from cupola.engine.histogram import HistogramCounts
from cupola.server.choices import MetricsAlias
from cupola.server.metric_table import METRICS, MetricSpec, Reading, Value
from cupola.server.record import RequestRecord
from cupola.server.shelf import ModelShelf
from cupola.server.slot import ModelSlot

PREFIX = "cupola:"
ALIASES: Mapping[MetricsAlias, str] = {"vllm": "vllm:"}

CACHE_CONFIG = (
    "cache_config_info",
    "The KV cache, as labels.",
    ("model_name", "block_size", "num_gpu_blocks"),
)
REJECTIONS = ("admission_rejections", "Requests that were not taken, by reason.", ("model_name", "reason"))
RESPONSES = ("http_requests", "Responses by path and status.", ("path", "status"))

# Errors that say: this request cannot run here, or not now.
_REASONS = frozenset({"queue_full", "draining", "context_length_exceeded", "model_unavailable", "engine_failed"})


class Telemetry:
    """Counts in a registry of its own, so that two servers in one process do not mix.

    Args:
        shelf: the models.
        known_paths: those that get a label of their own.
        aliases: names of other servers under whose prefix their metrics are published too.
    """

    def __init__(self, shelf: ModelShelf, known_paths: frozenset[str], aliases: Sequence[MetricsAlias] = ()) -> None:
        self._shelf = shelf
        self._known_paths = known_paths
        self._responses: Counter[tuple[str, ...]] = Counter()
        self._rejections: Counter[tuple[str, ...]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(_Renamed(self.families, [ALIASES[alias] for alias in aliases]))
        ProcessCollector(registry=self._registry)

    def observe(self, record: RequestRecord) -> None:
        """Counts one finished request. Unknown paths share one label: clients cannot make the metrics grow."""
        path = record.path if record.path in self._known_paths else "other"
        self._responses[path, str(record.status)] += 1
        if record.error_code in _REASONS:
            self._rejections[record.model or "", record.error_code] += 1
        if record.model is not None:
            self._shelf.find(record.model).meter.answer(record)

    def render(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus scrapes, in the format that it asks for, and the type of that."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def families(self) -> Iterator[tuple[Metric, bool]]:
        """Every metric without its prefix, and whether vLLM has it too."""
        readings = [(slot.name, _read(slot)) for slot in self._shelf.slots]
        for spec in METRICS:
            family = _family(spec)
            for name, reading in readings:
                _add(family, name, spec.read(reading))
            yield family, spec.in_vllm
        yield _cache_config(readings), True
        yield _counter(REJECTIONS, self._rejections), False
        yield _counter(RESPONSES, self._responses), False


def _read(slot: ModelSlot) -> Reading:
    page_size = None if slot.served is None else slot.served.page_size
    return Reading(slot.stats(), slot.histograms(), slot.meter, slot.served is not None, page_size, slot.waiting)


class _Renamed(Collector):
    """Gives families their prefix, and repeats under other prefixes those that are known there."""

    def __init__(self, families: Callable[[], Iterable[tuple[Metric, bool]]], aliases: Sequence[str]) -> None:
        self._families = families
        self._aliases = tuple(aliases)

    def collect(self) -> Iterable[Metric]:
        for family, known in self._families():
            for prefix in (PREFIX, *(self._aliases if known else ())):
                renamed = Metric(prefix + family.name, family.documentation, family.type)
                renamed.samples = [sample._replace(name=prefix + sample.name) for sample in family.samples]
                yield renamed

    def describe(self) -> Iterable[Metric]:
        """Nothing is read before it is asked for."""
        return ()


def _family(spec: MetricSpec) -> Metric:
    labels = ("model_name",) if spec.label is None else ("model_name", spec.label)
    if spec.kind == "histogram":
        return HistogramMetricFamily(spec.name, spec.text, labels=labels)
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    return kind(spec.name, spec.text, labels=labels)


def _add(family: Metric, name: str, value: Value) -> None:
    if value is None:
        return
    if isinstance(value, HistogramCounts):
        assert isinstance(family, HistogramMetricFamily)
        family.add_metric((name,), _buckets(value), value.total)
        return
    assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
    if isinstance(value, Mapping):
        for label, number in value.items():
            family.add_metric((name, label), number)
    else:
        family.add_metric((name,), value)


def _buckets(value: HistogramCounts) -> list[tuple[str, float]]:
    """Prometheus wants each bucket to count what lies below its bound, all the way down."""
    bounds = [*map(floatToGoString, value.bounds), "+Inf"]
    return list(zip(bounds, accumulate(value.counts), strict=True))


def _cache_config(readings: Sequence[tuple[str, Reading]]) -> Metric:
    name, text, labels = CACHE_CONFIG
    family = GaugeMetricFamily(name, text, labels=labels)
    for model, reading in readings:
        if reading.page_size is not None:
            family.add_metric((model, str(reading.page_size), str(reading.stats.pages_total)), 1)
    return family


def _counter(what: tuple[str, str, tuple[str, ...]], counts: Mapping[tuple[str, ...], int]) -> Metric:
    name, text, labels = what
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
