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
from family_gguf import CASES, write_family_gguf
from gguf import MODEL_ARCH_NAMES
from safetensors.numpy import load_file, save_file

from cupola.models import registry
from cupola.models.parameters import declare
from cupola.models.spec import DecoderSpec
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.convert import convert
from cupola.weights.gguf import GgufCheckpoint
from cupola.weights.gguf_families import FAMILIES as GGUF_FAMILIES
from cupola.weights.huggingface import HuggingFaceCheckpoint
from family_models import FAMILIES, Shapes, golden_shapes, weights

# transformers has no InternLM 2 of its own, so that `family_models` has none.
INTERNLM2 = FAMILIES["llama-yarn"] | {"model_type": "internlm2", "rope_parameters": None, "tie_word_embeddings": False}


def spec_of(config: dict[str, object]) -> DecoderSpec:
    spec = registry.read(config)[1]
    assert isinstance(spec, DecoderSpec)
    return spec


def shapes_of(name: str, spec: DecoderSpec) -> Shapes:
    if name in FAMILIES:
        return golden_shapes(name)
    return {source.name: list(source.shape) for parameter in declare(spec, ()) for source in parameter.sources}


def parameters_of(checkpoint: Checkpoint, spec: DecoderSpec, folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir()
    convert(checkpoint, list(declare(spec, checkpoint.tensors)), folder, lambda _done, _total: None)
    return {name: value for path in sorted(folder.iterdir()) for name, value in load_file(path).items()}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_the_model_of_the_folder(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    config = {k: v for k, v in ({**FAMILIES, "internlm2": INTERNLM2}[name] | case.changes).items() if v is not None}
    spec = spec_of(config)
    tensors = weights(name, shapes_of(name, spec))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    write_family_gguf(tmp_path / "m.gguf", case, spec, tensors, config)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    found = spec_of(dict(checkpoint.config))
    assert replace(found, names=spec.names) == spec
    expected = parameters_of(HuggingFaceCheckpoint(folder), spec, tmp_path / "expected")
    actual = parameters_of(checkpoint, found, tmp_path / "actual")
    assert actual.keys() == expected.keys()
    for parameter, value in expected.items():
        np.testing.assert_array_equal(actual[parameter], value, err_msg=parameter)


def test_every_architecture_has_a_case() -> None:
    assert {MODEL_ARCH_NAMES[case.arch] for case in CASES.values()} == set(GGUF_FAMILIES)
