"""A tiny model of each kind of quantized folder writes what its dequantized floats write, greedily and to the last bit.

One library serves all: in `f32` the model's code does not depend on how its checkpoint was stored, only its weights do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from quantized_folders import FolderKind, Make, Tensors, awq, float8, gptq, integers, packed, signed, write_folder

from compiled import compiled_folder
from cupola.compiler.compile import chosen_parameters
from cupola.models import registry
from cupola.weights.convert import convert
from cupola.weights.source import open_checkpoint
from numerics.sequence import Sequences, read_manifest
from tiny_models import TinyModel

MODEL = TinyModel("foreign", seed=77, layers=1, intermediate=96)
PROMPT, TOKENS = 16, 24


def of_integers(pack: Callable[..., Tensors], count: int, regular: bool, **how: object) -> Make:
    """Layers of integers of `count` bits in groups of 32."""

    def make(layer: str, matrix: np.ndarray) -> tuple[Tensors, np.ndarray]:
        found = integers(matrix, count, 32, symmetric=regular)
        return pack(layer, found, **how), found.numbers

    return make


def of_floats(block: tuple[int, int] | None, suffix: str) -> Make:
    def make(layer: str, matrix: np.ndarray) -> tuple[Tensors, np.ndarray]:
        found = float8(matrix, ml_dtypes.float8_e4m3fn, block)
        scale = found.scale if block else found.scale.reshape(1)
        return {f"{layer}.weight": found.values, f"{layer}.{suffix}": scale}, found.numbers

    return make


def compressed(how: str, bits: int) -> Mapping[str, object]:
    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": 32}
    return {"quant_method": "compressed-tensors", "format": how, "config_groups": {"g": {"weights": weights}}}


KINDS = (
    FolderKind("gptq", {"quant_method": "gptq", "bits": 4}, of_integers(gptq, 4, False, bits=4)),
    FolderKind("gptq-8", {"quant_method": "gptq", "bits": 8, "sym": True}, of_integers(gptq, 8, True, bits=8)),
    FolderKind("awq", {"quant_method": "awq", "bits": 4}, of_integers(awq, 4, False)),
    FolderKind("packed", compressed("pack-quantized", 4), of_integers(packed, 4, True, bits=4, symmetric=True)),
    FolderKind("w8a8", compressed("int-quantized", 8), of_integers(signed, 8, True, symmetric=True)),
    FolderKind("fp8", {"quant_method": "fp8"}, of_floats(None, "weight_scale")),
    FolderKind(
        "fp8-blocks", {"quant_method": "fp8", "weight_block_size": [16, 24]}, of_floats((16, 24), "weight_scale_inv")
    ),
)


@dataclass(frozen=True)
class Written:
    """What a model wrote: its tokens, and the logits of each."""

    tokens: list[int]
    logits: np.ndarray


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled folder of the model's floats."""
    path = tmp_path_factory.mktemp("library") / "model"
    MODEL.write(path)
    return compiled_folder(str(path), "f32")


def written(library: Path, checkpoint: Path, scratch: Path) -> Written:
    """Serves a checkpoint with the library: its weights converted into a copy of the folder."""
    folder = scratch / f"{checkpoint.name}-compiled"
    shutil.copytree(library, folder)
    opened = open_checkpoint(str(checkpoint))
    _, spec = registry.read(opened.config)
    parameters = chosen_parameters(spec, opened, "f32")
    convert(opened, [parameters[weight.name] for weight in read_manifest(folder).weights], folder, lambda *_: None)
    sequences = Sequences(folder)
    ids = MODEL.token_ids()[:PROMPT]
    rows = [sequences.step({0: ids})[0][-1]]
    while len(rows) < TOKENS:
        rows.append(sequences.step({0: [int(rows[-1].argmax())]})[0][-1])
    return Written([int(row.argmax()) for row in rows], np.stack(rows))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_folder_writes_what_its_floats_write(library: Path, tmp_path: Path, kind: FolderKind) -> None:
    meant = write_folder(tmp_path / "quantized", MODEL, kind)
    write_folder(tmp_path / "floats", MODEL, None, weights=meant)
    quantized, floats = (written(library, tmp_path / name, tmp_path) for name in ("quantized", "floats"))
    assert quantized.tokens == floats.tokens
    np.testing.assert_array_equal(quantized.logits, floats.logits)
    assert len(set(quantized.tokens)) > 3
