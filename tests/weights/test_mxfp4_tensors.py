"""MXFP4 out of Hugging Face folders and GGUF files: the same codes, and the numbers that others read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from safetensors.numpy import save_file

from cupola.errors import ModelError
from cupola.quantize.formats import Format, Quantized
from cupola.quantize.rounding import dequantize
from cupola.weights.checkpoint import Keeping
from cupola.weights.gguf_blocks import quantized
from cupola.weights.huggingface import HuggingFaceCheckpoint

COUNT, ROWS, GROUPS = 3, 4, 2
NAME = "model.layers.0.mlp.experts.down_proj"
# The numbers as the format's specification lists them.
NUMBERS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def write(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "mxfp4"}}))
    save_file(tensors, folder / "model.safetensors")


def stack(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        f"{NAME}_blocks": rng.integers(0, 256, (COUNT, ROWS, GROUPS, 16), np.uint8),
        f"{NAME}_scales": rng.integers(100, 140, (COUNT, ROWS, GROUPS), np.uint8),
        f"{NAME}_bias": rng.standard_normal((COUNT, ROWS)).astype(np.float32),
    }


def test_a_folder(tmp_path: Path) -> None:
    tensors = stack(np.random.default_rng(0))
    write(tmp_path, tensors)
    checkpoint = HuggingFaceCheckpoint(tmp_path)
    assert set(checkpoint.tensors) == {f"{NAME}.weight", f"{NAME}_bias"}
    info = checkpoint.tensors[f"{NAME}.weight"]
    assert (info.shape, info.format, info.keeping) == ((COUNT, ROWS, 64), Format.MXFP4, Keeping.EXACT)
    blocks, scales = tensors[f"{NAME}_blocks"], tensors[f"{NAME}_scales"]
    numbers = np.stack([NUMBERS[blocks & 15], NUMBERS[blocks >> 4]], axis=-1).reshape(COUNT, ROWS, GROUPS, 32)
    expected = (numbers * np.ldexp(np.float32(1), scales.astype(int) - 127)[..., None]).reshape(-1, 64)
    kept = checkpoint.read_rows(f"{NAME}.weight", 2, 9)
    assert isinstance(kept, Quantized)
    np.testing.assert_array_equal(dequantize(kept), expected[2:9])
    np.testing.assert_array_equal(checkpoint.read_rows(f"{NAME}.weight", 2, 9, exact=True), expected[2:9])
    np.testing.assert_array_equal(checkpoint.read_rows(f"{NAME}_bias", 1, 2), tensors[f"{NAME}_bias"][1:2])


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("scales", None, "no .*_scales"),
        ("scales", np.zeros((COUNT, ROWS, 1), np.uint8), "no matrices of MXFP4"),
        ("blocks", np.zeros((COUNT, ROWS, GROUPS, 8), np.uint8), "no matrices of MXFP4"),
        ("scales", np.full((COUNT, ROWS, GROUPS), 255, np.uint8), "is no number"),
    ],
)
def test_damaged_folders(tmp_path: Path, part: str, value: np.ndarray | None, message: str) -> None:
    tensors = stack(np.random.default_rng(0))
    del tensors[f"{NAME}_{part}"]
    write(tmp_path, tensors if value is None else tensors | {f"{NAME}_{part}": value})
    with pytest.raises(ModelError, match=message):
        HuggingFaceCheckpoint(tmp_path).read_rows(f"{NAME}.weight", 0, 1)


def test_blocks_of_gguf() -> None:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (ROWS * GROUPS, 17), np.uint8)
    blocks[:, 0] = rng.integers(100, 140, ROWS * GROUPS)
    found = quantized(blocks.reshape(-1), GGMLQuantizationType.MXFP4, ROWS)
    assert found.format is Format.MXFP4
    expected = gguf_dequantize(blocks, GGMLQuantizationType.MXFP4).reshape(ROWS, -1)
    np.testing.assert_array_equal(dequantize(found), expected)
    blocks[3, 0] = 255
    with pytest.raises(ModelError, match="no number"):
        quantized(blocks.reshape(-1), GGMLQuantizationType.MXFP4, ROWS)
