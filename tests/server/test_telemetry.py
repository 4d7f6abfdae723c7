"""`/metrics`: both formats, the names that others expect, and what the numbers count."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cupola.engine.histogram import Histogram
from cupola.engine.options import EngineOptions
from cupola.server.metric_table import METRICS
from cupola.server.services import ServerSettings
from stand import CHAT, COMPLETIONS, Stand, open_stand, until

BODY = {"model": "scripted", "prompt": "abc", "max_tokens": 8, "ignore_eos": True}
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5"
MODEL = (("model_name", "scripted"),)

# What dashboards for vLLM and the endpoint picker of the Gateway API inference extension ask for.
EXPECTED = {
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "kv_cache_usage_perc": "gauge",
    "cache_config_info": "gauge",
    "prefix_cache_queries": "counter",
    "prefix_cache_hits": "counter",
    "prompt_tokens": "counter",
    "generation_tokens": "counter",
    "num_preemptions": "counter",
    "request_success": "counter",
    "time_to_first_token_seconds": "histogram",
    "inter_token_latency_seconds": "histogram",
    "request_time_per_output_token_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram",
    "request_queue_time_seconds": "histogram",
    "request_prefill_time_seconds": "histogram",
    "request_decode_time_seconds": "histogram",
    "request_prompt_tokens": "histogram",
    "request_generation_tokens": "histogram",
    "iteration_tokens_total": "histogram",
}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(stand: Stand) -> Samples:
    text = (await stand.client.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


async def test_what_a_request_leaves_behind(stand: Stand) -> None:
    for _ in range(2):
        assert (await stand.client.post(COMPLETIONS, json=BODY)).status_code == 200
    samples = await scrape(stand)

    def value(name: str, *labels: tuple[str, str]) -> float:
        return samples[f"cupola:{name}", tuple(sorted((*MODEL, *labels)))]

    assert value("request_success_total", ("finished_reason", "length")) == 2
    for name, count in {
        "time_to_first_token_seconds": 2,
        "e2e_request_latency_seconds": 2,
        "request_queue_time_seconds": 2,
        "request_prefill_time_seconds": 2,
        "request_decode_time_seconds": 2,
        "request_time_per_output_token_seconds": 2,
        "inter_token_latency_seconds": 14,
        "request_prompt_tokens": 2,
    }.items():
        assert value(f"{name}_count") == count, name
        assert value(f"{name}_bucket", ("le", "+Inf")) == count, name
    assert value("request_prompt_tokens_sum") == 6
    assert value("request_generation_tokens_sum") == 16
    assert value("iteration_tokens_total_sum") == 6 + 14  # the prompts, and every token but the last, go through a step
    assert value("iteration_tokens_total_count") == 16
    assert value("cache_config_info", ("block_size", "16"), ("num_gpu_blocks", "512")) == 1
    assert value("kv_cache_usage_perc") == 0
    assert value("model_loaded") == 1
    waited = sum(value(f"{name}_sum") for name in ("request_queue_time_seconds", "request_prefill_time_seconds"))
    assert 0 < waited <= value("time_to_first_token_seconds_sum")


async def test_the_gauges_while_a_request_runs() -> None:
    options = EngineOptions(num_pages=8, max_batch=1, max_context=128)
    async with open_stand("scripted:step_us=100000", options) as stand:  # so slow that both are there for seconds
        requests = [asyncio.create_task(stand.client.post(COMPLETIONS, json=BODY | {"max_tokens": 60})) for _ in "ab"]
        await until(lambda: stand.engine.stats().running == 1 and stand.engine.stats().waiting == 1)
        samples = await scrape(stand)
        assert samples["cupola:num_requests_running", MODEL] == 1
        assert samples["cupola:num_requests_waiting", MODEL] == 1
        assert samples["cupola:kv_cache_usage_perc", MODEL] in {n / 8 for n in range(1, 5)}
        for request in requests:
            request.cancel()
        await until(lambda: stand.engine.stats().running == stand.engine.stats().waiting == 0)


async def test_refusals_are_counted_by_reason() -> None:
    async with open_stand() as stand:
        too_long = await stand.client.post(COMPLETIONS, json=BODY | {"max_tokens": 10**6})
        assert too_long.status_code == 400
        stand.lifecycle.begin_drain()
        assert (await stand.client.post(CHAT, json={})).status_code == 503
        samples = await scrape(stand)
    reasons = {
        dict(labels)["reason"]: value
        for (name, labels), value in samples.items()
        if name == "cupola:admission_rejections_total"
    }
    assert reasons == {"context_length_exceeded": 1, "draining": 1}


async def test_a_client_that_leaves_is_an_abort() -> None:
    async with open_stand("scripted:step_us=1000") as stand:
        running = asyncio.create_task(stand.client.post(COMPLETIONS, json=BODY | {"max_tokens": 4000}))
        await until(lambda: stand.engine.stats().running == 1)
        running.cancel()
        await until(lambda: stand.engine.stats().running == 0)
        samples = await scrape(stand)
        assert samples["cupola:request_success_total", (("finished_reason", "abort"), *MODEL)] == 1


@pytest.mark.parametrize("accept", ["", "text/plain", OPENMETRICS])
async def test_both_formats_are_valid_and_hold_what_others_ask_for(accept: str) -> None:
    async with open_stand(settings=ServerSettings(metrics_aliases=("vllm",))) as stand:
        await stand.client.post(COMPLETIONS, json=BODY)
        answer = await stand.client.get("/metrics", headers={"accept": accept})
    openmetrics = accept == OPENMETRICS
    assert answer.headers["content-type"].startswith("application/openmetrics-text" if openmetrics else "text/plain")
    kinds = {family.name: family.type for family in (parse_openmetrics if openmetrics else parse_text)(answer.text)}
    for prefix in ("cupola:", "vllm:"):
        assert (
            EXPECTED.items()
            <= {name.removeprefix(prefix): kind for name, kind in kinds.items() if name.startswith(prefix)}.items()
        )
    assert "vllm:kv_pages" not in kinds
    assert "cupola:kv_pages" in kinds
    assert "process_resident_memory_bytes" in kinds


async def test_no_other_name_is_used_unless_it_was_asked_for(stand: Stand) -> None:
    assert "vllm" not in (await stand.client.get("/metrics")).text


def test_names_are_unique() -> None:
    names = [spec.name for spec in METRICS]
    assert len(names) == len(set(names))


def test_a_histogram_counts_a_value_below_the_bound_that_it_equals() -> None:
    histogram = Histogram((1, 2))
    for value in (0, 1, 1.5, 2, 3):
        histogram.observe(value)
    counts = histogram.snapshot()
    assert counts.counts == (2, 2, 1)
    assert counts.total == 7.5
    assert (counts + counts).counts == (4, 4, 2)
    assert (counts + counts).count == 10
