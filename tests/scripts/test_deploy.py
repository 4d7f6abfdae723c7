"""What is kept for deployments: it is as it is generated, and every metric that it asks for exists."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy import dashboard as generator
from stand import COMPLETIONS, open_stand

DEPLOY = Path(generator.__file__).parent
# Words of PromQL that look like names of metrics.
_WORDS = frozenset({"sum", "by", "rate", "histogram_quantile", "label_values", "and"})
_LABELS = frozenset({"le", "model_name", "finished_reason", "reason", "path", "status", "instance"})


def queries() -> dict[str, str]:
    """Every query of dashboard and alerts, by where it is."""
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    found |= {variable["name"]: variable["query"]["query"] for variable in dashboard["templating"]["list"][1:]}
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]:
        found |= {rule["alert"]: rule["expr"] for rule in group["rules"]}
    return found


def metrics_in(query: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"", "", query)
    return set(re.findall(r"[a-z_][a-z0-9_:]*", bare)) - _WORDS - _LABELS


@pytest.fixture
async def published() -> set[str]:
    """The names of all samples that a server has when it has answered, and refused, a request."""
    async with open_stand() as stand:
        for model in ("scripted", "scripted", "none"):
            await stand.client.post(COMPLETIONS, json={"model": model, "prompt": "x", "max_tokens": 5000})
            await stand.client.post(COMPLETIONS, json={"model": model, "prompt": "x", "max_tokens": 5})
        text = (await stand.client.get("/metrics")).text
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


async def test_every_metric_that_is_asked_for_exists(published: set[str]) -> None:
    asked = {name: metrics_in(query) for name, query in queries().items()}
    assert len(asked) > 30
    assert all(asked.values())
    missing = {name: names - published - {"up"} for name, names in asked.items() if names - published - {"up"}}
    assert not missing


def test_the_dashboard_is_what_its_script_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["dashboard.py", "--check"])
    generator.main()
    other = tmp_path / "dashboard.json"
    other.write_text("{}")
    monkeypatch.setattr(generator, "FILE", other)
    with pytest.raises(SystemExit, match="is not what"):
        generator.main()


def test_panels_do_not_overlap() -> None:
    panels = generator.dashboard()["panels"]
    assert isinstance(panels, list)
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert max(x for x, _ in cells) < 24


def test_prometheus_reads_the_rules_beside_it() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert all((DEPLOY / file).is_file() for file in config["rule_files"])
    assert config["scrape_configs"][0]["job_name"] == "cupola"


def test_names_are_found_in_queries() -> None:
    assert metrics_in('sum by (le) (rate(cupola:x_bucket{a="b:c"}[$__rate_interval])) / up') == {
        "cupola:x_bucket",
        "up",
    }
