"""The pages that are written from the code say what the code says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import gen_reference
from cupola.cli import serve_options
from cupola.models.registry import ARCHITECTURES


def test_the_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gen_reference.py", "--check"])
    gen_reference.main()


def test_a_page_that_is_not_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["gen_reference.py", "--check"])
    monkeypatch.setattr(gen_reference, "DOCS", tmp_path)
    with pytest.raises(SystemExit, match=r"docs/cli\.md"):
        gen_reference.main()


def test_the_page_of_commands_names_every_option() -> None:
    page = gen_reference.cli()
    commands = "serve run compile batch bench models show pull list rm doctor completion"
    for name in commands.split():
        assert f"## `cupola {name}`" in page
    for option in ("--api-key-file", "--idle-unload", "--metrics-alias", "--prefix-cache, --no-prefix-cache"):
        assert f"| `{option}` |" in page
    assert "(or the variable `CUPOLA_API_KEY`)" in page
    assert serve_options.Host.__metadata__[0].help in page


def test_the_page_of_metrics_names_every_metric() -> None:
    page = gen_reference.metrics()
    for name in ("num_requests_waiting", "prefix_cache_hits_total", "admission_rejections_total", "cache_config_info"):
        assert f"| `{name}` |" in page


def test_the_readme_names_every_architecture() -> None:
    page = gen_reference.readme(gen_reference.README.read_text(encoding="utf-8"))
    for architecture in ARCHITECTURES:
        assert f"| {', '.join(f'`{kind}`' for kind in architecture.model_types)} |" in page
    assert page.count(gen_reference.MODELS_END) == 1


def test_a_readme_that_is_not_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "README.md"
    old.write_text(f"Head\n{gen_reference.MODELS_BEGIN}\nold\n{gen_reference.MODELS_END}\nTail\n", encoding="utf-8")
    monkeypatch.setattr(gen_reference, "README", old)
    monkeypatch.setattr(sys, "argv", ["gen_reference.py", "--check"])
    with pytest.raises(SystemExit, match=r"README\.md"):
        gen_reference.main()
