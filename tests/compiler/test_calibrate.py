"""Calibration of a tiny model: the probe's predictions and mean squares, formats by a budget, what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from cupola.compiler.calibrate import Calibrated, calibrate, importance_of
from cupola.compiler.calibration_text import text_of
from cupola.compiler.compile import chosen_parameters
from cupola.compiler.config import CompileConfig
from cupola.compiler.probe import Probe
from cupola.errors import UsageError
from cupola.models import registry
from cupola.models.spec import DecoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.layouts import unpack
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.convert import convert, floats, packed, packed_size
from cupola.weights.source import open_checkpoint
from tiny_models import TINY_MODELS

MODEL = TINY_MODELS[0]
GOLDENS = Path(__file__).resolve().parents[1] / "goldens"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    MODEL.write(folder)
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def spec(checkpoint: Checkpoint) -> DecoderSpec:
    _, spec = registry.read(checkpoint.config)
    assert isinstance(spec, DecoderSpec)
    return spec


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of the tiny model's tokenizer."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(f"t{i}" for i in np.random.default_rng(0).integers(3, MODEL.vocab, 300)))
    return path


@pytest.fixture(scope="module")
def probe(checkpoint: Checkpoint, spec: DecoderSpec) -> Probe:
    """It has seen the model's tokens."""
    probe = Probe(spec, checkpoint, chosen_parameters(spec, checkpoint, "q4"), 128, lambda _, __: None)
    expected = np.load(GOLDENS / "tiny_logits.npz")[MODEL.name]
    found = np.concatenate(list(probe.logits(np.array(MODEL.token_ids()))))
    assert np.abs(found - expected).max() < 1e-3  # of transformers
    return probe


@pytest.fixture(scope="module")
def squares(probe: Probe) -> Mapping[str, np.ndarray]:
    return probe.mean_squares()


@pytest.fixture(scope="module")
def budgeted(checkpoint: Checkpoint, spec: DecoderSpec, text: Path) -> Calibrated:
    config = CompileConfig().with_quantize(calibrate=str(text), bits=6.0).quantize
    return calibrate(checkpoint, spec, chosen_parameters(spec, checkpoint, "q4"), config, lambda _: None)


def test_mean_squares_are_those_of_the_inputs(squares: Mapping[str, np.ndarray]) -> None:
    ids, weights = np.array(MODEL.token_ids()), MODEL.weights()
    x = weights["model.embed_tokens.weight"][ids].astype(np.float64)
    x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5) * weights["model.layers.0.input_layernorm.weight"]
    np.testing.assert_allclose(squares["layers.0.attention.qkv.weight"], (x**2).mean(axis=0), rtol=1e-4)
    assert {values.shape for name, values in squares.items() if name.endswith("down.weight")} == {(MODEL.intermediate,)}
    assert all((values > 0).all() for values in squares.values())


def test_tables_that_are_only_looked_up_have_no_importance() -> None:
    found = importance_of({"embedding.weight": np.zeros(32), "head.weight": np.array([0.0, 4.0])})
    assert list(found) == ["head.weight"]
    np.testing.assert_allclose(found["head.weight"], [0.04, 4.04])


def test_a_matrix_is_replaced_for_a_while(probe: Probe) -> None:
    ids = np.array(MODEL.token_ids())[:20]
    before = np.concatenate(list(probe.logits(ids)))
    with probe.replaced("layers.1.ffn.down.weight", np.zeros((MODEL.hidden, MODEL.intermediate), np.float32)):
        changed = np.concatenate(list(probe.logits(ids)))
    assert np.abs(changed - before).max() > 0.1
    np.testing.assert_array_equal(np.concatenate(list(probe.logits(ids))), before)


def test_formats_keep_the_budget(budgeted: Calibrated) -> None:
    sizes = {name: packed_size(parameter) for name, parameter in budgeted.parameters.items()}
    weights = sum(np.prod(parameter.shape) for parameter in budgeted.parameters.values())
    assert 5.0 < 8 * sum(sizes.values()) / weights <= 6.0
    formats = {parameter.format for parameter in budgeted.parameters.values() if len(parameter.shape) == 2}
    assert len(formats) > 1
    assert formats <= {Format.Q3, Format.Q4, Format.Q8, Format.F16}
    assert budgeted.record is not None
    assert budgeted.record.text == "words.txt"
    assert budgeted.record.tokens == 300
    assert budgeted.record.expected_kl > 0


def test_what_matters_is_rounded_best(checkpoint: Checkpoint, budgeted: Calibrated, tmp_path: Path) -> None:
    parameter = replace(budgeted.parameters["layers.0.ffn.up.weight"], format=Format.Q3)
    importance = budgeted.importance[parameter.name]
    (weight,) = convert(checkpoint, [parameter], tmp_path, lambda _, __: None, importance=budgeted.importance)
    with safe_open(tmp_path / weight.file, "np") as file:
        rounded = unpack(file.get_tensor(weight.name), Format.Q3, (192, 64))
    exact = floats(checkpoint, parameter, 0, 192)
    plain = unpack(packed(checkpoint, parameter), Format.Q3, (192, 64))
    errors = [((stored - exact) ** 2 * importance).sum() for stored in (rounded, plain)]
    assert errors[0] < 0.97 * errors[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3.0}, "the budget leaves"),
        ({"target_size": "20k"}, "the budget leaves"),
        ({"target_size": "much"}, "not an amount of memory"),
        ({"calibrate": "/nowhere/text"}, "cannot read the calibration text"),
    ],
)
def test_what_cannot_be_had_is_refused(
    options: Mapping[str, str | float], message: str, checkpoint: Checkpoint, spec: DecoderSpec, text: Path
) -> None:
    config = CompileConfig().with_quantize(**{"calibrate": str(text), **options}).quantize
    with pytest.raises(UsageError, match=message):
        calibrate(checkpoint, spec, chosen_parameters(spec, checkpoint, "q4"), config, lambda _: None)


def test_a_short_text_is_refused(checkpoint: Checkpoint, spec: DecoderSpec, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("t5 t6")
    config = CompileConfig().with_quantize(calibrate=str(tmp_path / "short")).quantize
    with pytest.raises(UsageError, match="has 2 tokens, but 128 are needed"):
        calibrate(checkpoint, spec, chosen_parameters(spec, checkpoint, "q4"), config, lambda _: None)


def test_the_text_is_ours_unless_one_is_named(text: Path) -> None:
    def found(**options: str | float) -> str | None:
        text = text_of(CompileConfig().with_quantize(**options).quantize)
        return None if text is None else text[0]

    assert found() is None
    assert found(bits=4.0) == found(calibrate="auto") == "calibration.txt"
    assert found(bits=4.0, calibrate=str(text)) == "words.txt"
