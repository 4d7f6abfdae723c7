"""`cupola eval`: what it measures, what it keeps, what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from command import cupola

from compiled import compiled_folder
from cupola.evaluation import read_evaluation
from tiny_models import TinyModel

MODEL = TinyModel("evaluated", seed=5, layers=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "evaluated"
    MODEL.write(folder)
    for quant in ("f16", "f32"):  # the command would do that too, but not within its minute on a busy machine
        compiled_folder(str(folder), quant)
    return folder


@pytest.fixture(scope="module")
def text(checkpoint: Path) -> Path:
    path = checkpoint.parent / "words.txt"
    path.write_text(" ".join(f"t{i}" for i in np.random.default_rng(0).integers(3, MODEL.vocab, 200)))
    return path


def test_a_model_is_evaluated_and_shown(checkpoint: Path, text: Path) -> None:
    command = ["eval", str(checkpoint), "--quant", "f16", "--text", str(text), "--context", "64"]
    done = cupola(*command, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["text"], found["context"], found["tokens"]) == ("words.txt", 64, 200)
    assert 0 < found["mean_kl"] < found["p99_kl"] < 0.01
    assert 0.9 < found["same_best_token"] <= 1
    assert 0.99 < found["perplexity"] / found["reference_perplexity"] < 1.01
    folder = compiled_folder(str(checkpoint), "f16")
    kept = read_evaluation(folder)
    assert kept is not None
    assert kept.model_dump() == found
    shown = cupola("show", str(folder))
    assert f"{found['mean_kl']:.5f} nats a token" in shown.out
    assert json.loads(cupola("show", str(folder), "--json").out)["evaluation"] == found
    exact = json.loads(cupola("eval", str(checkpoint), "--quant", "f32", "--text", str(text), "--json").out)
    assert exact["mean_kl"] == 0
    assert exact["same_best_token"] == 1
    assert math.isclose(exact["perplexity"], exact["reference_perplexity"])


def test_a_compiled_folder_needs_something_to_be_compared_with(checkpoint: Path, text: Path) -> None:
    folder = str(compiled_folder(str(checkpoint), "f16"))
    alone = cupola("eval", folder)
    assert alone.code == 2
    assert "--against" in alone.err
    done = cupola("eval", folder, "--against", str(checkpoint), "--text", str(text), "--tokens", "50")
    assert done.code == 0, done.err
    assert "50 tokens of words.txt" in done.out


@pytest.mark.parametrize(("content", "message"), [(None, "cannot read the text"), ("t5", "too few tokens")])
def test_texts_that_say_nothing_are_refused(
    checkpoint: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "text"
    if content is not None:
        path.write_text(content)
    done = cupola("eval", str(checkpoint), "--quant", "f16", "--text", str(path))
    assert done.code == 2
    assert message in done.err
