"""Folders that other tools quantized: their own numbers, which integers are kept, and what is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from quantized_folders import FolderKind, Tensors, awq, float8, gptq, integers, packed, save, signed, write_folder

from cupola.compiler.compile import chosen_parameters
from cupola.errors import ModelError, UnsupportedError
from cupola.models import registry
from cupola.quantize.formats import Format, Quantized
from cupola.quantize.rounding import dequantize
from cupola.weights.checkpoint import Keeping
from cupola.weights.holdings import holdings
from cupola.weights.huggingface import HuggingFaceCheckpoint
from tiny_models import TinyModel

LAYER = "model.layers.0.mlp.up_proj"
ROWS, INPUTS = 48, 256
MATRIX = np.random.default_rng(1).standard_normal((ROWS, INPUTS))
# Rows that are wanted of a matrix: no boundary of a word, a block or a group of outputs.
PARTS = ((0, ROWS), (3, 21), (16, 32))


def opened(folder: Path, tensors: Tensors, quantization: Mapping[str, object]) -> HuggingFaceCheckpoint:
    folder.mkdir(exist_ok=True)
    save(folder / "model.safetensors", tensors)
    config = {**TinyModel("tiny", seed=5).config(), "quantization_config": dict(quantization)}
    (folder / "config.json").write_text(json.dumps(config))
    return HuggingFaceCheckpoint(folder)


def check(checkpoint: HuggingFaceCheckpoint, numbers: np.ndarray, fmt: Format, keeping: Keeping) -> None:
    """The layer is what `numbers` says, to the last bit of float32; its integers are kept as `keeping` promises."""
    name = f"{LAYER}.weight"
    assert list(checkpoint.tensors) == [name]
    info = checkpoint.tensors[name]
    assert (info.shape, info.format, info.keeping) == ((ROWS, INPUTS), fmt, keeping)
    for start, stop in PARTS:
        exact = checkpoint.read_rows(name, start, stop, exact=True)
        assert isinstance(exact, np.ndarray)
        np.testing.assert_allclose(exact, numbers[start:stop], rtol=2**-23)
    for start, stop in PARTS:
        rows = checkpoint.read_rows(name, start, stop)
        if keeping is Keeping.FLOATS or (keeping is Keeping.ROUNDED and isinstance(rows, np.ndarray)):
            np.testing.assert_allclose(rows, numbers[start:stop], rtol=2**-23)
            continue
        assert isinstance(rows, Quantized)
        assert rows.format is fmt
        error = np.abs(dequantize(rows) - numbers[start:stop])
        if keeping is Keeping.ROUNDED:  # to 8 bits
            assert (error <= np.abs(numbers).max() / 250).all()
        elif keeping is Keeping.EXACT:
            np.testing.assert_array_equal(dequantize(rows), numbers[start:stop].astype(np.float32))
        elif rows.minimum is not None:
            # A zero point is at most 15 steps away; scale and minimum are each off by half of their last bit.
            assert (error <= 2**-11 * np.repeat(np.abs(rows.minimum.astype(np.float64)) * 3, 32, axis=1) + 1e-6).all()
        else:
            assert (error <= 2**-11 * np.abs(numbers[start:stop]) + 1e-6).all()


@dataclass(frozen=True)
class Case:
    """Bits, group, symmetric; and what they must become."""

    bits: int
    group: int
    symmetric: bool
    fmt: Format
    keeping: Keeping
    dtype: type = np.float16

    def __str__(self) -> str:
        return f"int{self.bits}-g{self.group}-{'sym' if self.symmetric else 'asym'}-{np.dtype(self.dtype).name}"


CASES = (
    Case(4, 128, True, Format.Q4S, Keeping.EXACT),
    Case(4, 32, True, Format.Q4S, Keeping.EXACT),
    Case(4, INPUTS, True, Format.Q4S, Keeping.INTEGERS, np.float32),
    Case(4, 64, True, Format.Q4S, Keeping.INTEGERS, ml_dtypes.bfloat16),
    Case(4, 128, False, Format.Q4, Keeping.INTEGERS),
    Case(4, 16, False, Format.Q8, Keeping.ROUNDED),
    Case(8, 128, True, Format.Q8, Keeping.EXACT),
    Case(8, 64, False, Format.Q8, Keeping.ROUNDED),
    Case(2, 64, False, Format.Q4S, Keeping.EXACT),
)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gptq(tmp_path: Path, case: Case, version: int) -> None:
    found = integers(MATRIX, case.bits, case.group, symmetric=case.symmetric, dtype=case.dtype)
    kind = {"checkpoint_format": "gptq_v2"} if version == 2 else {}
    config = {"quant_method": "gptq", "bits": case.bits, "group_size": case.group, "sym": case.symmetric, **kind}
    checkpoint = opened(tmp_path, gptq(LAYER, found, case.bits, version=version), config)
    check(checkpoint, found.numbers, case.fmt, case.keeping)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compressed_tensors_packed(tmp_path: Path, case: Case) -> None:
    found = integers(MATRIX, case.bits, case.group, symmetric=case.symmetric, dtype=case.dtype)
    checkpoint = opened(tmp_path, packed(LAYER, found, case.bits, symmetric=case.symmetric), compressed(case.bits))
    check(checkpoint, found.numbers, case.fmt, case.keeping)


@pytest.mark.parametrize(
    ("group", "fmt", "keeping"), [(128, Format.Q4, Keeping.INTEGERS), (16, Format.Q8, Keeping.ROUNDED)]
)
def test_awq(tmp_path: Path, group: int, fmt: Format, keeping: Keeping) -> None:
    found = integers(MATRIX, 4, group, symmetric=False)
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    check(opened(tmp_path, awq(LAYER, found), config), found.numbers, fmt, keeping)


@pytest.mark.parametrize("method", ["gptq", "compressed-tensors"])
def test_the_order_of_activations_is_rounded_to_eight_bits(tmp_path: Path, method: str) -> None:
    """Neighbours have scales of their own, which no group of ours can have."""
    order = np.random.default_rng(2).permutation(INPUTS)
    found = integers(MATRIX, 4, 64, symmetric=False, order=order)
    if method == "gptq":
        tensors, config = gptq(LAYER, found, 4), {"quant_method": "gptq", "bits": 4, "desc_act": True}
    else:
        tensors, config = packed(LAYER, found, 4, symmetric=False, ordered=True), compressed(4)
    checkpoint = opened(tmp_path, tensors, config)
    check(checkpoint, found.numbers, Format.Q8, Keeping.ROUNDED)
    assert "order of activations" in checkpoint.tensors[f"{LAYER}.weight"].stored


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [INPUTS, 64])
def test_compressed_tensors_w8a8(tmp_path: Path, symmetric: bool, group: int) -> None:
    found = integers(MATRIX, 8, group, symmetric=symmetric, dtype=np.float32)
    checkpoint = opened(tmp_path, signed(LAYER, found, symmetric=symmetric), compressed(8, "int-quantized"))
    keeping = Keeping.INTEGERS if symmetric else Keeping.ROUNDED
    check(checkpoint, found.numbers, Format.Q8, keeping)


def test_eight_bits_with_zero_points_stay_where_they_fit(tmp_path: Path) -> None:
    """Of two halves of a row, one has codes within 8 bits of its zero point."""
    found = integers(MATRIX, 8, 128, symmetric=False)
    found.zero[:, 0] = 128
    checkpoint = opened(tmp_path, gptq(LAYER, found, 8), {"quant_method": "gptq", "bits": 8})
    rows = checkpoint.read(f"{LAYER}.weight")
    assert isinstance(rows, Quantized)
    half, numbers = dequantize(rows)[:, :128], found.numbers
    np.testing.assert_array_equal(half, numbers[:, :128].astype(np.float32))
    assert (np.abs(dequantize(rows) - numbers) <= np.abs(numbers).max() / 250).all()


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize("block", [None, (ROWS, 1), (1, INPUTS), (32, 96)], ids=str)
def test_float8(tmp_path: Path, dtype: type, block: tuple[int, int] | None) -> None:
    if block == (ROWS, 1):
        block = (1, 64)  # a scale for a group of a row's inputs
    found = float8(MATRIX, dtype, block)
    scale = found.scale.reshape(()) if block is None else found.scale
    blocks = block == (32, 96)
    suffix = "weight_scale_inv" if blocks else "weight_scale"
    config = {"quant_method": "fp8", "weight_block_size": list(block) if blocks and block else None}
    checkpoint = opened(tmp_path, {f"{LAYER}.weight": found.values, f"{LAYER}.{suffix}": scale}, config)
    check(checkpoint, found.numbers, Format.F32, Keeping.FLOATS)


def test_float8_by_compressed_tensors(tmp_path: Path) -> None:
    found = float8(MATRIX, ml_dtypes.float8_e4m3fn, (32, 64))
    tensors = {
        f"{LAYER}.weight": found.values,
        f"{LAYER}.weight_scale": found.scale,
        f"{LAYER}.input_scale": found.scale,
    }
    config = compressed(8, "float-quantized", kind="float", block_structure=[32, 64], strategy="block")
    check(opened(tmp_path, tensors, config), found.numbers, Format.F32, Keeping.FLOATS)


def test_float8_alone(tmp_path: Path) -> None:
    """A folder that declares nothing means the values themselves."""
    values = MATRIX.astype(ml_dtypes.float8_e4m3fn)
    save(tmp_path / "model.safetensors", {f"{LAYER}.weight": values})
    (tmp_path / "config.json").write_text(json.dumps(TinyModel("tiny", seed=5).config()))
    check(HuggingFaceCheckpoint(tmp_path), values.astype(np.float64), Format.F32, Keeping.FLOATS)


def test_an_older_gptq_folder(tmp_path: Path) -> None:
    found = integers(MATRIX, 4, 128, symmetric=True)
    save(tmp_path / "model.safetensors", gptq(LAYER, found, 4))
    (tmp_path / "config.json").write_text(json.dumps(TinyModel("tiny", seed=5).config()))
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 128, "sym": True}))
    check(HuggingFaceCheckpoint(tmp_path), found.numbers, Format.Q4S, Keeping.EXACT)


def compressed(
    bits: int, how: str = "pack-quantized", kind: str = "int", strategy: str = "group", **weights: object
) -> dict[str, object]:
    scheme = {"num_bits": bits, "type": kind, "strategy": strategy, **weights}
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme}}
    return {"quant_method": "compressed-tensors", "format": how, "config_groups": groups, "ignore": ["lm_head"]}


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "bitsandbytes"}, "'bitsandbytes'"),
        ({"quant_method": "exl2"}, "'exl2'"),
        ({"quant_method": "gptq", "bits": 3}, "bits 3"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format 'marlin'"),
        ({"quant_method": "awq", "bits": 3}, "bits 3"),
        ({"quant_method": "awq", "bits": 4, "version": "GEMV"}, "version 'gemv'"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "quant_algo 'NVFP4'"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"blocks of \[128\]"),
        (compressed(4, "nvfp4-pack-quantized"), "format 'nvfp4-pack-quantized'"),
        (compressed(4, "marlin-24"), "format 'marlin-24'"),
        (compressed(3), "num_bits 3"),
        (compressed(4, kind="float"), "num_bits 4"),
        (compressed(4, strategy="token"), "strategy 'token'"),
        ({**compressed(4), "sparsity_config": {"format": "sparse-24-bitmask"}}, "'sparse-24-bitmask'"),
        ({**compressed(4), "transform_config": {"config_groups": {"u": {}}}}, "transformed activations"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_by_its_name(
    tmp_path: Path, quantization: Mapping[str, object], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        opened(tmp_path, {f"{LAYER}.weight": MATRIX.astype(np.float32)}, quantization)
    assert caught.value.hint


def damaged(tensors: Tensors, part: str, value: np.ndarray | None) -> Tensors:
    rest = {name: tensor for name, tensor in tensors.items() if not name.endswith(part)}
    return rest if value is None else rest | {f"{LAYER}.{part}": value}


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("qzeros", None, "has .*qweight, but no .*qzeros"),
        ("g_idx", np.full(INPUTS, 9, np.int32), "g_idx"),
        ("g_idx", np.zeros(3, np.int32), "g_idx"),
        ("qzeros", np.zeros((2, 6), np.int32), "symmetric"),
    ],
)
def test_damaged_gptq_folders(tmp_path: Path, part: str, value: np.ndarray | None, message: str) -> None:
    found = integers(MATRIX, 4, 128, symmetric=True)
    with pytest.raises(ModelError, match=message):
        opened(
            tmp_path, damaged(gptq(LAYER, found, 4), part, value), {"quant_method": "gptq", "bits": 4, "sym": True}
        ).read(f"{LAYER}.weight")


def test_a_scale_that_fits_nothing(tmp_path: Path) -> None:
    found = float8(MATRIX, ml_dtypes.float8_e4m3fn, None)
    tensors = {f"{LAYER}.weight": found.values, f"{LAYER}.weight_scale": np.ones((7, 3), np.float32)}
    with pytest.raises(ModelError, match=r"shape \[7, 3\] does not scale"):
        opened(tmp_path, tensors, {"quant_method": "fp8"})
    del tensors[f"{LAYER}.weight_scale"]
    with pytest.raises(ModelError, match=r"no .*weight_scale"):
        opened(tmp_path, tensors, {"quant_method": "fp8"})


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("q4", {"compressed-tensors int4 in groups of 32 as q4s, kept exactly", "F32 as q8"}),
        ("f32", {"compressed-tensors int4 in groups of 32 as f32", "F32 as f32"}),
    ],
)
def test_what_becomes_of_the_weights_is_said(tmp_path: Path, scheme: str, words: set[str]) -> None:
    model = TinyModel("tiny", seed=5)

    def make(layer: str, matrix: np.ndarray) -> tuple[Tensors, np.ndarray]:
        found = integers(matrix, 4, 32, symmetric=True)
        return packed(layer, found, 4, symmetric=True), found.numbers

    write_folder(tmp_path, model, FolderKind("packed", compressed(4), make))
    checkpoint = HuggingFaceCheckpoint(tmp_path)
    _, spec = registry.read(checkpoint.config)
    found = holdings(checkpoint, chosen_parameters(spec, checkpoint, scheme).values())
    assert {str(holding) for holding in found} == words
    assert sum(holding.weights for holding in found) == sum(
        matrix.size for matrix in model.weights().values() if matrix.ndim == 2
    )
