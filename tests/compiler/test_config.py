"""The compile configuration: what it accepts, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupola.compiler.config import CompileConfig, load
from cupola.errors import UsageError
from cupola.resources import resource_folder


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_the_shipped_configuration_states_the_defaults() -> None:
    assert load(resource_folder("compile_configs") / "cpu.toml") == CompileConfig()


def test_quant_overrides_the_file() -> None:
    assert CompileConfig().with_quant("q8").model.quant == "q8"
    assert CompileConfig().with_quant(None) == CompileConfig()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[target]\ncpus = 'auto'", "`target.cpus`"),
        ("[targets]\nkind = 'llvm'", "`targets`"),
        ("[target]\nkind = 'fpga'", "`target.kind`"),
        ("[kv_cache]\npage_size = 12", "`kv_cache.page_size`"),
        ("[limits]\nmax_batch = 0", "`limits.max_batch`"),
        ("[limits]\nmax_batch = '8'", "`limits.max_batch`"),
        ("[model]\nquant = 'q3'", "`model.quant`"),
        ("[target\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        load(written(tmp_path, text))
    assert "\n" not in caught.value.message


def test_an_unknown_key_gets_the_list_of_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(written(tmp_path, "[model]\nquantization = 'q4'"))
    assert "model.quant" in str(caught.value.hint)


def test_a_missing_file_and_a_wrong_scheme_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="q5"):
        CompileConfig().with_quant("q5")
