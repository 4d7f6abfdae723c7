#!/usr/bin/env python3
"""Writes the Grafana dashboard beside this file, from the table of panels below.

python scripts/deploy/dashboard.py            write grafana-dashboard.json
python scripts/deploy/dashboard.py --check    fail when it differs from the file
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("grafana-dashboard.json")
WHERE = '{model_name=~"$model", instance=~"$instance"}'
SERVER = '{instance=~"$instance"}'
RATE = "[$__rate_interval]"
WIDTH, HEIGHT = 8, 8  # of 24 columns


@dataclass(frozen=True)
class Panel:
    """One graph: its title, the unit of its axis, and its queries with their legends."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    most: float | None = None


def rate(name: str, by: str = "model_name", where: str = WHERE) -> str:
    """How much of a counter comes in a second."""
    return f"sum by ({by}) (rate(cupola:{name}{where}{RATE}))"


def gauge(name: str) -> str:
    """The sum of a gauge over all servers."""
    return f"sum by (model_name) (cupola:{name}{WHERE})"


def mean(name: str) -> str:
    """The mean of a histogram's values."""
    return f"{rate(f'{name}_sum')} / {rate(f'{name}_count')}"


def quantiles(title: str, name: str, unit: str = "s") -> Panel:
    """The quantiles of a histogram."""
    buckets = f"sum by (le) (rate(cupola:{name}_bucket{WHERE}{RATE}))"
    queries = ((f"histogram_quantile({q}, {buckets})", f"p{round(float(q) * 100)}") for q in ("0.5", "0.9", "0.99"))
    return Panel(title, unit, tuple(queries))


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Load",
        (
            Panel(
                "Requests",
                "short",
                (
                    (gauge("num_requests_running"), "running {{model_name}}"),
                    (gauge("num_requests_waiting"), "waiting {{model_name}}"),
                ),
            ),
            Panel(
                "Tokens a second",
                "short",
                (
                    (rate("generation_tokens_total"), "generated {{model_name}}"),
                    (rate("prompt_tokens_total"), "prompt {{model_name}}"),
                ),
            ),
            Panel("Ended requests a second", "reqps", ((rate("request_success_total", "finished_reason"), ""),)),
            Panel("Refused requests a second", "reqps", ((rate("admission_rejections_total", "reason", SERVER), ""),)),
            Panel("Responses a second", "reqps", ((rate("http_requests_total", "path, status", SERVER), ""),)),
            Panel("Loaded models", "short", ((gauge("model_loaded"), "{{model_name}}"),)),
        ),
    ),
    (
        "Latency",
        (
            quantiles("Time to the first token", "time_to_first_token_seconds"),
            quantiles("Time between tokens", "inter_token_latency_seconds"),
            quantiles("Time of a request", "e2e_request_latency_seconds"),
            quantiles("Time in the queue", "request_queue_time_seconds"),
            quantiles("Time of the prompt", "request_prefill_time_seconds"),
            quantiles("Time of the answer", "request_decode_time_seconds"),
            quantiles("Mean time of a request's tokens", "request_time_per_output_token_seconds"),
            quantiles("Tokens of a prompt", "request_prompt_tokens", "short"),
            quantiles("Tokens of an answer", "request_generation_tokens", "short"),
        ),
    ),
    (
        "Engine",
        (
            Panel("KV cache in use", "percentunit", ((f"cupola:kv_cache_usage_perc{WHERE}", "{{model_name}}"),), 1),
            Panel(
                "Prompt tokens from the cache",
                "percentunit",
                ((f"{rate('prefix_cache_hits_total')} / {rate('prefix_cache_queries_total')}", "{{model_name}}"),),
                1,
            ),
            Panel("Preemptions a second", "short", ((rate("num_preemptions_total"), "{{model_name}}"),)),
            Panel("Tokens of a step", "short", ((mean("iteration_tokens_total"), "{{model_name}}"),)),
            Panel(
                "Time of a step",
                "s",
                ((f"{rate('engine_step_seconds_total')} / {rate('engine_steps_total')}", "{{model_name}}"),),
            ),
            Panel("Memory of the server", "bytes", ((f"process_resident_memory_bytes{SERVER}", "{{instance}}"),)),
        ),
    ),
)


def dashboard() -> dict[str, object]:
    """Grafana's form of it."""
    panels: list[dict[str, object]] = []
    top = 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "id": len(panels) + 1, "gridPos": _place(0, top, 24, 1)})
        for index, panel in enumerate(row):
            left, below = index % (24 // WIDTH) * WIDTH, top + 1 + index // (24 // WIDTH) * HEIGHT
            panels.append(_panel(panel, len(panels) + 1, _place(left, below, WIDTH, HEIGHT)))
        top += 1 + -(-len(row) // (24 // WIDTH)) * HEIGHT
    return {
        "title": "Cupola",
        "uid": "cupola",
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "tags": ["llm", "inference"],
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                _variable("model", "Model", "label_values(cupola:model_loaded, model_name)"),
                _variable("instance", "Server", "label_values(cupola:model_loaded, instance)"),
            ]
        },
        "panels": panels,
    }


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _variable(name: str, label: str, query: str) -> dict[str, object]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, object]:
    axis: dict[str, object] = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        axis["max"] = panel.most
    return {
        "type": "timeseries",
        "title": panel.title,
        "id": number,
        "gridPos": place,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": axis, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend or "__auto"}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def main() -> None:
    """Write it, or compare."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text)
    elif FILE.read_text() != text:
        sys.exit(f"{FILE.name} is not what {Path(__file__).name} writes; hint: run it without --check")


if __name__ == "__main__":
    main()
