"""Every metric of a model: its name, what it means, and where its value is read. The list in the documentation is
printed from this table.

Names and meanings are those of vLLM where vLLM has the metric (`in_vllm`), so that its dashboards and the endpoint
picker of the Gateway API inference extension understand them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from cupola.engine.histogram import HistogramCounts
from cupola.engine.request import EngineStats
from cupola.server.meter import RequestMeter

Kind = Literal["gauge", "counter", "histogram"]
Value = float | HistogramCounts | Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a model when somebody asks.

    Args:
        histograms: the engine's own, by name; a model that was never loaded has none.
        page_size: token slots a page; None while it is not loaded.
        waiting: requests that wait for it to be loaded.
    """

    stats: EngineStats
    histograms: Mapping[str, HistogramCounts]
    meter: RequestMeter
    loaded: bool
    page_size: int | None
    waiting: int


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    Args:
        name: without its prefix, and without the `_total` of a counter.
        read: its value; None: there is none now. A mapping gives one for each value of `label`.
        label: the label that it has beside `model_name`.
        in_vllm: vLLM has it too.
    """

    name: str
    kind: Kind
    text: str
    read: Callable[[Reading], Value]
    label: str | None = None
    in_vllm: bool = True


def _usage(reading: Reading) -> float:
    stats = reading.stats
    return 1 - stats.pages_free / stats.pages_total if stats.pages_total else 0.0


def _engine(name: str) -> Callable[[Reading], Value]:
    return lambda reading: reading.histograms.get(name)


METRICS = (
    MetricSpec(
        "num_requests_running", "gauge", "Requests in the engine's batch.", lambda reading: reading.stats.running
    ),
    MetricSpec(
        "num_requests_waiting",
        "gauge",
        "Requests in the engine's queue, or waiting for the model to be loaded.",
        lambda reading: reading.stats.waiting + reading.waiting,
    ),
    MetricSpec("kv_cache_usage_perc", "gauge", "Part of the pages that requests hold, 0 to 1.", _usage),
    MetricSpec(
        "prompt_tokens", "counter", "Prompt tokens of requests that began.", lambda reading: reading.stats.prompt_tokens
    ),
    MetricSpec(
        "prompt_tokens_cached",
        "counter",
        "Prompt tokens of ended requests that the prefix cache had.",
        lambda reading: reading.meter.cached_tokens,
    ),
    MetricSpec("generation_tokens", "counter", "Tokens generated.", lambda reading: reading.stats.generated_tokens),
    MetricSpec(
        "prefix_cache_queries",
        "counter",
        "Prompt tokens looked up in the prefix cache.",
        lambda reading: reading.stats.prefix_queries,
    ),
    MetricSpec(
        "prefix_cache_hits",
        "counter",
        "Prompt tokens found in the prefix cache.",
        lambda reading: reading.stats.prefix_hits,
    ),
    MetricSpec(
        "num_preemptions",
        "counter",
        "Requests that gave their pages back and started again.",
        lambda reading: reading.stats.preemptions,
    ),
    MetricSpec(
        "request_success",
        "counter",
        "Requests of the engine that ended, by how: stop, length, abort, deadline, error.",
        lambda reading: reading.meter.finished,
        label="finished_reason",
    ),
    MetricSpec(
        "time_to_first_token_seconds",
        "histogram",
        "From the arrival of a request at the server to its first token.",
        lambda reading: reading.meter.first_token_seconds.snapshot(),
    ),
    MetricSpec(
        "inter_token_latency_seconds",
        "histogram",
        "From a step that gave a request tokens to the next such step.",
        _engine("inter_token_seconds"),
    ),
    MetricSpec(
        "request_time_per_output_token_seconds",
        "histogram",
        "Mean time of a request's tokens after the first.",
        lambda reading: reading.meter.token_seconds.snapshot(),
    ),
    MetricSpec(
        "e2e_request_latency_seconds",
        "histogram",
        "From the arrival of a request for the model at the server to the end of its response.",
        lambda reading: reading.meter.seconds.snapshot(),
    ),
    MetricSpec(
        "request_queue_time_seconds",
        "histogram",
        "From the arrival of a request at the engine to its first step.",
        _engine("queue_seconds"),
    ),
    MetricSpec(
        "request_prefill_time_seconds",
        "histogram",
        "From a request's first step to its first token.",
        _engine("prefill_seconds"),
    ),
    MetricSpec(
        "request_decode_time_seconds",
        "histogram",
        "From a request's first token to its end.",
        lambda reading: reading.meter.decode_seconds.snapshot(),
    ),
    MetricSpec(
        "request_prompt_tokens",
        "histogram",
        "Prompt tokens of a request.",
        lambda reading: reading.meter.prompt_tokens.snapshot(),
    ),
    MetricSpec(
        "request_generation_tokens",
        "histogram",
        "Tokens generated for a request.",
        lambda reading: reading.meter.generation_tokens.snapshot(),
    ),
    MetricSpec(
        "iteration_tokens_total", "histogram", "Tokens that a step of the engine computed.", _engine("step_tokens")
    ),
    MetricSpec("model_loaded", "gauge", "1 while the model is loaded.", lambda reading: reading.loaded, in_vllm=False),
    MetricSpec("kv_pages", "gauge", "Pages of the KV cache.", lambda reading: reading.stats.pages_total, in_vllm=False),
    MetricSpec(
        "kv_pages_free",
        "gauge",
        "Pages of the KV cache that no request holds.",
        lambda reading: reading.stats.pages_free,
        in_vllm=False,
    ),
    MetricSpec(
        "kv_pages_cached",
        "gauge",
        "Pages of the KV cache that can be found by their tokens.",
        lambda reading: reading.stats.pages_cached,
        in_vllm=False,
    ),
    MetricSpec(
        "kv_pages_pinned",
        "gauge",
        "Pages of pinned prefixes.",
        lambda reading: reading.stats.pages_pinned,
        in_vllm=False,
    ),
    MetricSpec(
        "prefix_cache_evictions",
        "counter",
        "Pages that the prefix cache forgot to make room.",
        lambda reading: reading.stats.prefix_evictions,
        in_vllm=False,
    ),
    MetricSpec(
        "engine_heartbeat_age_seconds",
        "gauge",
        "Time since the engine thread's last sign of life.",
        lambda reading: reading.stats.last_step_age,
        in_vllm=False,
    ),
    MetricSpec("engine_steps", "counter", "Steps of the engine.", lambda reading: reading.stats.steps, in_vllm=False),
    MetricSpec(
        "engine_step_seconds",
        "counter",
        "Time spent in steps.",
        lambda reading: reading.stats.step_seconds,
        in_vllm=False,
    ),
    MetricSpec(
        "requests_aborted",
        "counter",
        "Requests that the engine ended because their reader went away, or a stop string was found.",
        lambda reading: reading.stats.aborted,
        in_vllm=False,
    ),
)
