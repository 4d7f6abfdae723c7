"""Experts under all the names and in all the layouts that folders keep them in are the same parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cupola.models import registry
from cupola.models.parameters import declare
from cupola.models.spec import DecoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.mxfp4 import halves, scales
from cupola.weights.convert import convert
from cupola.weights.huggingface import HuggingFaceCheckpoint
from family_models import FAMILIES, golden_shapes, weights

Weights = Mapping[str, np.ndarray]


def parameters(folder: Path, config: Mapping[str, object], tensors: Weights) -> dict[str, np.ndarray]:
    """The packed parameters of a folder with these tensors, in float32."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors")
    checkpoint = HuggingFaceCheckpoint(folder)
    spec = registry.read(checkpoint.config)[1]
    assert isinstance(spec, DecoderSpec)
    out = folder / "out"
    out.mkdir()
    convert(checkpoint, list(declare(spec, checkpoint.tensors)), out, lambda _done, _total: None)
    return {name: value for path in sorted(out.iterdir()) for name, value in load_file(path).items()}


def merged(tensors: Weights, gate: str, up: str, down: str, block: str) -> Weights:
    """Experts that are kept one by one as the two stacks that newer releases of transformers compute with."""
    stacks: dict[tuple[str, str], list[np.ndarray]] = {}
    found = {}
    for name, value in tensors.items():
        match = re.fullmatch(rf"(.*\.){block}\.experts\.\d+\.({gate}|{up}|{down})\.weight", name)
        if match is None:
            found[name.replace(f".{block}.", ".mlp.")] = value
        else:
            stacks.setdefault((match[1], match[2]), []).append(value)
    for layer, _ in {key: None for key in stacks if key[1] == gate}:
        gates, ups, downs = (np.stack(stacks[layer, part]) for part in (gate, up, down))
        found[f"{layer}mlp.experts.gate_up_proj"] = np.concatenate([gates, ups], axis=1)
        found[f"{layer}mlp.experts.down_proj"] = downs
    return found


def granite_renamed(tensors: Weights) -> Weights:
    names = {
        "input_linear.weight": "experts.gate_up_proj",
        "output_linear.weight": "experts.down_proj",
        "router.layer": "router",
    }
    found = {}
    for name, value in tensors.items():
        changed = name
        for old, new in names.items():
            changed = changed.replace(f"block_sparse_moe.{old}", f"block_sparse_moe.{new}")
        found[changed] = value
    return found


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("mixtral", lambda tensors: merged(tensors, "w1", "w3", "w2", "block_sparse_moe")),
        ("qwen2-moe", lambda tensors: merged(tensors, "gate_proj", "up_proj", "down_proj", "mlp")),
        ("granite-moe-shared", granite_renamed),
    ],
)
def test_older_and_newer_names(tmp_path: Path, name: str, rename: Callable[[Weights], Weights]) -> None:
    tensors = weights(name, golden_shapes(name))
    renamed = rename(tensors)
    assert renamed.keys() != tensors.keys()
    expected = parameters(tmp_path / "old", FAMILIES[name], tensors)
    found = parameters(tmp_path / "new", FAMILIES[name], renamed)
    assert found.keys() == expected.keys()
    for parameter, value in expected.items():
        np.testing.assert_array_equal(found[parameter], value, err_msg=parameter)


def test_gpt_oss_in_mxfp4_is_that_of_its_numbers(tmp_path: Path) -> None:
    """Blocks hold rows of outputs, gate and up in turn; floats hold the same matrices turned round."""
    floats = dict(weights("gpt-oss", golden_shapes("gpt-oss")))
    packed = dict(floats)
    rng = np.random.default_rng(0)
    for name in [name for name in floats if name.endswith(("gate_up_proj", "down_proj"))]:
        count, inputs, rows = floats[name].shape
        blocks = rng.integers(0, 256, (count, rows, inputs // 32, 16), np.uint8)
        exponents = rng.integers(115, 125, (count, rows, inputs // 32), np.uint8)
        codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(count, rows, -1, 32)
        numbers = halves(codes) * scales(exponents)[..., None]
        floats[name] = numbers.reshape(count, rows, inputs).swapaxes(1, 2).astype(np.float32)
        del packed[name]
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": exponents}
    expected = parameters(tmp_path / "floats", FAMILIES["gpt-oss"], floats)
    config = FAMILIES["gpt-oss"] | {"quantization_config": {"quant_method": "mxfp4"}}
    found = parameters(tmp_path / "packed", config, packed)
    assert found.keys() == expected.keys()
    for parameter, value in expected.items():
        np.testing.assert_array_equal(found[parameter], value, err_msg=parameter)
    checkpoint = HuggingFaceCheckpoint(tmp_path / "packed")
    assert sum(info.format is Format.MXFP4 for info in checkpoint.tensors.values()) == 4
