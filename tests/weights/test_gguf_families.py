"""A GGUF file of every family is the model of the Hugging Face folder: the same shape and the same bits.

`tests/numerics/test_families.py` compares what the folders compute with transformers; bits that are equal compute
the same.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from family_gguf import CASES, Case, family_config, family_spec, family_weights, older_deepseek2, write_family_gguf
from gguf import MODEL_ARCH_NAMES
from safetensors.numpy import load_file, save_file

from cupola.models import registry
from cupola.models.parameters import declare
from cupola.models.spec import DecoderSpec
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.convert import convert
from cupola.weights.gguf import GgufCheckpoint
from cupola.weights.gguf_encoders import ENCODERS
from cupola.weights.gguf_families import FAMILIES as GGUF_FAMILIES
from cupola.weights.huggingface import HuggingFaceCheckpoint


def parameters_of(checkpoint: Checkpoint, spec: DecoderSpec, folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir()
    convert(checkpoint, list(declare(spec, checkpoint.tensors)), folder, lambda _done, _total: None)
    return {name: value for path in sorted(folder.iterdir()) for name, value in load_file(path).items()}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_the_model_of_the_folder(tmp_path: Path, name: str) -> None:
    compare(tmp_path, name, CASES[name])


def test_an_older_file_of_latent_attention_is_the_model_too(tmp_path: Path) -> None:
    compare(tmp_path, "deepseek2", older_deepseek2())


def test_positions_that_were_not_trained_with_are_left_out(tmp_path: Path) -> None:
    case = CASES["granite4"]
    write_family_gguf(
        tmp_path / "m.gguf",
        "granite4",
        replace(case, metadata={**case.metadata, "rope.scaling.finetuned": False}),
    )
    spec = registry.read(dict(GgufCheckpoint(tmp_path / "m.gguf").config))[1]
    assert isinstance(spec, DecoderSpec)
    assert {layer.rotary for layer in spec.layers} == {None}


def compare(tmp_path: Path, name: str, case: Case) -> None:
    spec = family_spec(name)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(family_config(name)))
    save_file(dict(family_weights(name)), folder / "model.safetensors")
    write_family_gguf(tmp_path / "m.gguf", name, case)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    found = registry.read(dict(checkpoint.config))[1]
    assert isinstance(found, DecoderSpec)
    assert replace(found, names=spec.names) == spec
    expected = parameters_of(HuggingFaceCheckpoint(folder), spec, tmp_path / "expected")
    actual = parameters_of(checkpoint, found, tmp_path / "actual")
    assert actual.keys() == expected.keys()
    for parameter, value in expected.items():
        np.testing.assert_array_equal(actual[parameter], value, err_msg=parameter)


def test_every_architecture_has_a_case() -> None:
    assert {MODEL_ARCH_NAMES[case.arch] for case in CASES.values()} == set(GGUF_FAMILIES) - set(ENCODERS)
