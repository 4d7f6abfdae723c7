"""`cupola show`: the numbers of a checkpoint are those of the folder that is compiled from it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command import cupola

from compiled import compiled_folder
from cupola.cli import show
from cupola.cli.outline import Outline, _elements, of_checkpoint, of_folder
from cupola.engine.folder import read_manifest
from cupola.manifest import KvCache, Shape, Weight
from cupola.quantize.formats import Format
from cupola.quantize.layouts import packed_dtype, packed_shape
from cupola.weights.source import open_checkpoint
from tiny_encoders import TINY_ENCODERS
from tiny_models import TinyModel

MODEL = TinyModel("shown", seed=5, vocab=100, tied=False)
PARAMETERS = sum(weight.size for weight in MODEL.weights().values())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("show") / "shown"
    MODEL.write(folder)
    return folder


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    return compiled_folder(str(checkpoint), "q4")


def test_a_checkpoint_is_shown_as_it_is_compiled(checkpoint: Path, folder: Path) -> None:
    before = of_checkpoint(open_checkpoint(str(checkpoint)), "q4")
    after = of_folder(folder, read_manifest(folder))
    for key in ("name", "architecture", "task", "scheme", "parameters", "formats", "shape", "kv_cache"):
        assert getattr(before, key) == getattr(after, key), key
    assert before.parameters == PARAMETERS
    files = sum(file.stat().st_size for file in folder.glob("weights-*"))
    assert files - 16384 < after.weight_bytes <= files
    assert before.working_bytes is None
    assert after.working_bytes


@pytest.mark.parametrize("fmt", list(Format))
def test_parameters_are_counted_without_what_fills_their_blocks(fmt: Format) -> None:
    def packed(name: str, rows: int) -> Weight:
        shape = packed_shape(fmt, (rows, 64))
        return Weight(name=name, file="", format=fmt.value, dtype=packed_dtype(fmt).name, shape=shape)

    shape = outline().shape.model_copy(update={"vocab_size": 100})
    assert _elements(packed("embedding.weight", 100), shape) == 6400
    assert _elements(packed("layers.0.ffn.up.weight", 96), shape) == 96 * 64


def test_an_encoder_keeps_no_keys_and_values(tmp_path: Path) -> None:
    TINY_ENCODERS[0].write(tmp_path / "encoder")
    outline = of_checkpoint(open_checkpoint(str(tmp_path / "encoder")), None)
    assert (outline.task, outline.scheme) == ("embed", "q16")
    assert outline.kv_bytes(64) == 0
    assert outline.longest_context(10**9) == outline.shape.max_context
    screen = cupola("show", str(tmp_path / "encoder")).out
    assert "for embeddings" in screen
    assert "keys, values" not in screen


def test_the_screen_and_the_json_say_the_same(folder: Path) -> None:
    facts = json.loads(cupola("show", str(folder), "--context", "17", "--json").out)
    assert (facts["state"], facts["fits"], facts["obstacle"]) == ("compiled", True, None)
    assert facts["kv_bytes"] == 2 * read_manifest(folder).kv_cache.page_bytes * MODEL.layers
    assert facts["memory_bytes"] == facts["weight_bytes"] + facts["kv_bytes"] + facts["working_bytes"]
    screen = cupola("show", folder.name, "--context", "17").out  # by its name in the cache
    for words in ("llama, for text", "100 tokens", f"{facts['bits_per_weight']:.2f} bits", "for 17 tokens", "has room"):
        assert words in screen, screen


def test_a_model_of_another_machine_is_told(folder: Path, tmp_path: Path) -> None:
    values = json.loads((folder / "model.json").read_text())
    values["libraries"][0]["target"]["machine"] = "z80"
    (tmp_path / "model.json").write_text(json.dumps(values))
    facts = json.loads(cupola("show", str(tmp_path), "--json").out)
    assert (facts["fits"], facts["longest_context"]) == (False, 0)
    assert "z80" in facts["obstacle"]


def outline() -> Outline:
    shape = Shape(
        vocab_size=1,
        logit_stride=1,
        hidden_size=1,
        num_layers=3,
        num_heads=1,
        num_kv_heads=1,
        head_dim=1,
        max_context=64,
    )
    cache = KvCache(page_size=16, dtype="int8", page_elements=1000)
    return Outline("m", Path(os.sep), "compiled", "llama", "generate", "q4", 1000, {"q4": 500}, shape, cache, 100)


@pytest.mark.parametrize(
    ("available", "tokens"), [(0, 0), (3599, 0), (3600, 16), (6599, 16), (6600, 32), (12600, 64), (10**9, 64)]
)
def test_how_much_context_fits(available: int, tokens: int) -> None:
    assert outline().longest_context(available) == tokens
    assert outline().memory(tokens) <= max(available, 600)


@pytest.mark.parametrize(
    ("available", "words"),
    [
        (12600, "has room for it: 13 kB of 13 kB free"),
        (12599, "has no room for it: 13 kB needed, 13 kB free; at most 48 tokens of context fit"),
        (3000, "not even one page of context fits"),
    ],
)
def test_what_is_said_of_the_room(available: int, words: str) -> None:
    assert words in show._room(outline(), 64, available)


def test_options_that_do_not_suit(checkpoint: Path, folder: Path) -> None:
    assert "was made for 256 tokens" in cupola("show", str(checkpoint), "--context", "257").err
    assert "--quant is for a checkpoint" in cupola("show", str(folder), "--quant", "q8").err
    assert "there is no model or folder nothing" in cupola("show", "nothing").err
