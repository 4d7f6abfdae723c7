"""Compiling a tiny model: the folder, the promise of whole or nothing, the cache."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from cupola.compiler import cache
from cupola.compiler.compile import compile_model
from cupola.compiler.config import CompileConfig
from cupola.compiler.progress import Progress
from cupola.compiler.target import resolve_all
from cupola.errors import CupolaError, ModelError, StorageError, UnsupportedError, UsageError
from cupola.manifest import Manifest
from cupola.weights.source import open_checkpoint
from tiny_models import TINY_MODELS, TinyModel

CONFIG = CompileConfig().with_quant("f32")
TARGETS = resolve_all(CONFIG.target)


def ignore(_: Progress) -> None:
    """A progress report that nobody watches."""


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Path:
    TINY_MODELS[0].write(tmp_path / "tiny")
    return tmp_path / "tiny"


def compile_to(folder: Path, source: Path, config: CompileConfig = CONFIG) -> Manifest:
    return compile_model(open_checkpoint(str(source)), config, TARGETS, folder, ignore)


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_folder_holds_what_its_manifest_says(checkpoint_folder: Path, tmp_path: Path) -> None:
    manifest = compile_to(tmp_path / "out", checkpoint_folder)
    folder = tmp_path / "out"
    assert Manifest.model_validate_json((folder / "model.json").read_text()) == manifest
    assert {"lib.so", "tokenizer.json", "weights-00001.safetensors"} <= set(manifest.files)
    for name, digest in manifest.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    tiny = TINY_MODELS[0]
    assert manifest.shape.vocab_size == tiny.vocab
    assert manifest.kv_cache.dtype == "float32"
    assert manifest.kv_cache.page_elements == 2 * 16 * tiny.kv_heads * tiny.head_dim
    assert manifest.special_ids.eos == (2,)
    assert [w.name for w in manifest.weights[:3]] == [
        "embedding.weight",
        *(f"layers.0.attention.{name}.weight" for name in ("qkv", "output")),
    ]
    assert manifest.library.memory["forward"] > 0


@pytest.mark.parametrize(
    ("changes", "kind", "named"),
    [
        ({"model_type": "mamba"}, UnsupportedError, "mamba"),
        ({"head_dim": 12}, CupolaError, "head_dim|q_proj"),
        ({"attention_bias": True}, ModelError, "q_proj.bias"),
        ({"hidden_act": "mish"}, UnsupportedError, "hidden_act"),
        ({"model_type": "qwen2", "layer_types": ["mamba"]}, UnsupportedError, "mamba"),
        ({"rope_scaling": {"rope_type": "spiral"}}, UnsupportedError, "spiral"),
        ({"num_hidden_layers": "two"}, ModelError, "num_hidden_layers"),
        ({"num_hidden_layers": 3}, ModelError, "layers.2"),
        ({"intermediate_size": 128}, ModelError, "gate_proj"),
        ({"vocab_size": None}, ModelError, "vocab_size"),
    ],
)
def test_a_wrong_checkpoint_is_refused_and_leaves_nothing(
    checkpoint_folder: Path, tmp_path: Path, changes: dict[str, object], kind: type[CupolaError], named: str
) -> None:
    change_config(checkpoint_folder, **changes)
    with pytest.raises(kind, match=named):
        compile_to(tmp_path / "deep" / "out", checkpoint_folder)
    assert not (tmp_path / "deep" / "out").exists()
    assert not list((tmp_path / "deep").iterdir()), "a temporary folder was left behind"


def test_the_unsupported_architecture_hint_lists_the_supported_ones(checkpoint_folder: Path, tmp_path: Path) -> None:
    change_config(checkpoint_folder, model_type="mamba")
    with pytest.raises(UnsupportedError) as caught:
        compile_to(tmp_path / "out", checkpoint_folder)
    assert "llama" in str(caught.value.hint)


def test_a_folder_that_is_no_model_is_never_overwritten(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="precious"):
        compile_to(tmp_path / "precious", checkpoint_folder)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_a_compiled_model_is_replaced(checkpoint_folder: Path, tmp_path: Path) -> None:
    compile_to(tmp_path / "out", checkpoint_folder)
    (tmp_path / "out" / "stale").touch()
    compile_to(tmp_path / "out", checkpoint_folder)
    assert not (tmp_path / "out" / "stale").exists()


def test_a_file_in_the_way_is_named(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        compile_to(tmp_path / "file" / "out", checkpoint_folder)


def test_max_context_beyond_the_training_is_refused(checkpoint_folder: Path, tmp_path: Path) -> None:
    config = CompileConfig.model_validate({"model": {"quant": "f32", "max_context": 257}})
    with pytest.raises(UsageError, match="257"):
        compile_to(tmp_path / "out", checkpoint_folder, config)


def test_whoever_is_first_compiles_and_the_others_wait(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUPOLA_HOME", str(tmp_path / "home"))
    compilations: list[str] = []
    folders: list[Path] = []

    def ask() -> None:
        checkpoint = open_checkpoint(str(checkpoint_folder))
        report = compilations.append
        folders.append(
            cache.compile_cached(checkpoint, CONFIG, TARGETS, lambda p: report(p.stage) if p.done == 0 else None)
        )

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1
    assert compilations.count("compile") == 1


def test_another_configuration_or_checkpoint_is_another_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPOLA_HOME", str(tmp_path / "home"))
    short = CompileConfig.model_validate({"model": {"quant": "f32", "max_context": 100}})
    first, second = TinyModel("a", seed=1), TinyModel("a", seed=2)
    first.write(tmp_path / "1" / "a")
    second.write(tmp_path / "2" / "a")
    folders = {
        cache.compile_cached(open_checkpoint(str(tmp_path / number / "a")), config, TARGETS, ignore)
        for number in ("1", "2")
        for config in (CONFIG, short)
    }
    assert len(folders) == 4


def test_another_format_of_compiled_folders_is_another_entry(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older Cupola left in the cache is compiled again, not refused."""
    monkeypatch.setenv("CUPOLA_HOME", str(tmp_path / "home"))
    checkpoint = open_checkpoint(str(checkpoint_folder))
    now = cache._key(checkpoint, CONFIG, TARGETS)
    monkeypatch.setattr(cache, "FORMAT_VERSION", cache.FORMAT_VERSION - 1)
    assert cache._key(checkpoint, CONFIG, TARGETS) != now


def test_compiling_one_more_keeps_the_cache_within_its_bound(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUPOLA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUPOLA_CACHE_SIZE", "1KiB")
    checkpoint = open_checkpoint(str(checkpoint_folder))
    old = cache.compile_cached(checkpoint, CONFIG, TARGETS, ignore)
    os.utime(old / "model.json", (0, 0))
    assert cache.compile_cached(checkpoint, CONFIG, TARGETS, ignore) == old, "a hit removes nothing, and is a use"
    assert (old / "model.json").stat().st_mtime > 0
    os.utime(old / "model.json", (0, 0))
    short = CompileConfig.model_validate({"model": {"quant": "f32", "max_context": 100}})
    new = cache.compile_cached(checkpoint, short, TARGETS, ignore)
    assert (new / "model.json").is_file()
    assert not old.exists()
