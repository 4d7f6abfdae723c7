"""The compile configuration: what it accepts, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupola.compiler.config import CompileConfig, TargetConfig, load
from cupola.compiler.target import resolve_all
from cupola.errors import UsageError
from cupola.resources import resource_folder


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_the_shipped_configuration_states_the_defaults() -> None:
    assert load(resource_folder("compile_configs") / "cpu.toml") == CompileConfig()


CONFIGS = {
    "cpu-x86-64": ["cpu:x86-64-v3", "cpu:x86-64-v4+avx512vnni"],
    "cpu-x86-64-v3": ["cpu:x86-64-v3"],
    "cpu-x86-64-v4": ["cpu:x86-64-v4+avx512vnni"],
    "cpu-aarch64": ["cpu:aarch64", "cpu:aarch64+dotprod", "cpu:aarch64+dotprod+i8mm"],
    **{f"cuda-{q}": [f"cuda:sm_{n}" for n in (80, 89, 90, 100)] for q in ("f16", "bf16", "q8", "q4")},
    "rocm": ["rocm:gfx90a", "rocm:gfx942", "rocm:gfx1100"],
    **{kind: [kind] for kind in ("metal", "vulkan", "webgpu", "opencl")},
}


def test_every_shipped_configuration_names_its_targets() -> None:
    names = {path.stem for path in resource_folder("compile_configs").glob("*.toml")}
    assert names == {"cpu", *CONFIGS}
    for name, targets in CONFIGS.items():
        config = load(resource_folder("compile_configs") / f"{name}.toml")
        assert [target.name for target in resolve_all(config.target, config.model.quant)] == targets
        assert name.partition("-")[2] in ("", config.model.quant) or name.startswith("cpu-")


def test_every_key_is_explained_in_one_place() -> None:
    lines = (resource_folder("compile_configs") / "cpu.toml").read_text().splitlines()
    explained = [line.split(" =")[0] for line in lines if " = " in line and "  # " in line]
    sections = CompileConfig.model_fields.values()
    keys = [key for section in sections for key in section.annotation.model_fields]
    assert explained == keys


def test_a_name_or_a_list_of_names() -> None:
    assert TargetConfig.model_validate({"cpu": "x86-64-v3"}) == TargetConfig.model_validate({"cpu": ["x86-64-v3"]})


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
        ("[model]\nquant = 'q2'", "`model.quant`"),
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
