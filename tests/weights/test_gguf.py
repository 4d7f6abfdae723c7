"""GGUF files: names, order, numbers, configuration, and every way in which a file can be bad."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from checkpoint_files import MODEL, TIED, finish, write_gguf
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter

from cupola.errors import ModelError, UnsupportedError
from cupola.quantize.formats import GROUP, Format, Quantized
from cupola.quantize.layouts import pack, unpack
from cupola.quantize.rounding import dequantize
from cupola.weights.gguf import GgufCheckpoint
from cupola.weights.gguf_blocks import KEPT_TYPES, ROUNDED_TYPES
from cupola.weights.gguf_file import GgufFile

EXACT = {
    Kind.Q4_0: Format.Q4S,
    Kind.Q4_1: Format.Q4,
    Kind.Q5_0: Format.Q8,
    Kind.Q8_0: Format.Q8,
    Kind.Q3_K: Format.Q8,
    Kind.IQ4_NL: Format.Q8,
    Kind.TQ1_0: Format.Q4S,
    Kind.TQ2_0: Format.Q4S,
    Kind.Q1_0: Format.Q4S,
}
WRITABLE = dict(list(EXACT.items())[:4])  # what the library can quantize rows of 64 to


def floats(rows: np.ndarray | Quantized) -> np.ndarray:
    return dequantize(rows) if isinstance(rows, Quantized) else rows


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, *WRITABLE])
def test_tensors_have_hugging_face_names_order_and_the_files_own_numbers(tmp_path: Path, kind: Kind) -> None:
    rounded = write_gguf(tmp_path / "m.gguf", kind=kind)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    assert {name: info.shape for name, info in checkpoint.tensors.items()} == MODEL.shapes()
    for name, expected in rounded.items():
        np.testing.assert_array_equal(floats(checkpoint.read(name)), expected, err_msg=name)


@pytest.mark.parametrize(("kind", "fmt"), list(WRITABLE.items()))
def test_quantized_tensors_are_packed_without_loss(tmp_path: Path, kind: Kind, fmt: Format) -> None:
    rounded = write_gguf(tmp_path / "m.gguf", kind=kind)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    for name, expected in rounded.items():
        if expected.ndim == 2:
            assert checkpoint.tensors[name].format is fmt
            packed = pack(checkpoint.read(name), fmt)
            np.testing.assert_array_equal(unpack(packed, fmt, expected.shape), expected)


# Where a block of each type has its float16 factors; the other bytes are integers.
FACTORS = dict.fromkeys((Kind.Q4_1, Kind.Q4_K, Kind.Q5_1, Kind.Q5_K), (0, 2)) | {
    Kind.Q3_K: (108,),
    Kind.TQ1_0: (52,),
    Kind.TQ2_0: (64,),
}


def random_blocks(kind: Kind, rows: int, per_row: int) -> np.ndarray:
    """uint8 [rows, bytes]: random bytes, which reach integers that a quantizer never writes, such as -128 in Q8_0."""
    random = np.random.default_rng(int(kind))
    blocks = random.integers(0, 256, (rows, per_row, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for at in FACTORS.get(kind, (0,)):
        blocks[:, :, at : at + 2] = random.standard_normal((rows, per_row, 1)).astype(np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def meant(blocks: np.ndarray, kind: Kind) -> np.ndarray:
    """float32 [rows, K] by the gguf library; Q1_0, which it has no numbers of, by llama.cpp's definition of a block."""
    if kind is not Kind.Q1_0:
        return gguf.quants.dequantize(blocks, kind)
    each = blocks.reshape(len(blocks), -1, 18)
    factor = each[..., :2].copy().view(np.float16).astype(np.float32)
    rows = np.empty((*each.shape[:2], 128), np.float32)
    for i in range(128):
        bit = each[..., 2 + i // 8] >> i % 8 & 1
        rows[..., i] = np.where(bit == 1, factor[..., 0], -factor[..., 0])
    return rows.reshape(len(blocks), -1)


def write_blocks(path: Path, blocks: np.ndarray, kind: Kind) -> GgufFile:
    """A file whose only tensor is `w`."""
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("w", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)


@pytest.mark.parametrize("kind", sorted(EXACT))
def test_any_block_of_bits_is_read_as_the_gguf_library_reads_it(tmp_path: Path, kind: Kind) -> None:
    blocks = random_blocks(kind, 64, 2)
    rows = write_blocks(tmp_path / "m.gguf", blocks, kind).read_rows("w", 0, 64)
    assert isinstance(rows, Quantized)
    np.testing.assert_array_equal(dequantize(rows), meant(blocks, kind))


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.IQ4_XS])
def test_scales_that_are_products_are_rounded_to_float16_and_integers_kept(tmp_path: Path, kind: Kind) -> None:
    blocks = random_blocks(kind, 64, 2)
    file = write_blocks(tmp_path / "m.gguf", blocks, kind)
    assert file.tensors["w"].format is KEPT_TYPES[kind]
    rows = file.read_rows("w", 0, 64)
    assert isinstance(rows, Quantized)
    assert rows.format is KEPT_TYPES[kind]
    exact = gguf.quants.dequantize(blocks, kind)
    error = abs(dequantize(rows) - exact).reshape(64, -1, GROUP)
    scale = abs(rows.values.astype(np.float32).reshape(error.shape) * rows.scale.astype(np.float32)[..., None])
    shift = 0 if rows.minimum is None else abs(rows.minimum.astype(np.float32))[..., None]
    assert (error <= 2**-11 * 1.01 * (scale + shift) + 15 * 2**-25).all()  # the latter for subnormal float16
    assert rows.format is not Format.Q4 or set(np.unique(rows.values)) == set(range(16))


@pytest.mark.parametrize("kind", sorted(KEPT_TYPES))
def test_numbers_can_be_had_before_scales_are_rounded(tmp_path: Path, kind: Kind) -> None:
    blocks = random_blocks(kind, 4, 2)
    rows = write_blocks(tmp_path / "m.gguf", blocks, kind).read_rows("w", 0, 4, exact=True)
    assert isinstance(rows, np.ndarray)
    np.testing.assert_array_equal(rows, meant(blocks, kind))


@pytest.mark.parametrize("kind", [Kind.Q5_1, Kind.Q5_K])
def test_five_bits_with_a_minimum_become_q8(tmp_path: Path, kind: Kind) -> None:
    blocks = random_blocks(kind, 64, 2)
    rows = write_blocks(tmp_path / "m.gguf", blocks, kind).read_rows("w", 0, 64)
    assert isinstance(rows, Quantized)
    assert rows.format is KEPT_TYPES[kind] is Format.Q8
    exact = gguf.quants.dequantize(blocks, kind)
    largest = abs(exact).reshape(64, -1, GROUP).max(axis=-1, keepdims=True)
    assert (abs(dequantize(rows) - exact).reshape(64, -1, GROUP) <= largest / 120).all()


def test_scales_beyond_float16_are_refused(tmp_path: Path) -> None:
    blocks = random_blocks(Kind.Q4_K, 1, 1)
    blocks[0, :2] = np.array([60000.0], np.float16).view(np.uint8)
    with pytest.raises(ModelError, match="Q4_K tensor has scales or minima beyond the range"):
        write_blocks(tmp_path / "m.gguf", blocks, Kind.Q4_K).read_rows("w", 0, 1)


@pytest.mark.parametrize("kind", sorted(ROUNDED_TYPES))
def test_every_type_that_we_claim_to_read_can_be_read(tmp_path: Path, kind: Kind) -> None:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    data = np.zeros((4, 256 // block * block_bytes), np.uint8)
    file = write_blocks(tmp_path / "m.gguf", data, kind)
    assert file.tensors["w"].format is Format.Q8
    rows = file.read_rows("w", 0, 4)
    assert isinstance(rows, np.ndarray)
    np.testing.assert_array_equal(rows, gguf.quants.dequantize(data, kind))


def test_rows_are_read_singly(tmp_path: Path) -> None:
    rounded = write_gguf(tmp_path / "m.gguf", kind=Kind.Q4_1)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    for name in ("model.layers.1.self_attn.k_proj.weight", "model.layers.0.mlp.up_proj.weight"):
        for start, stop in ((0, 1), (3, 20), (17, 32)):
            np.testing.assert_array_equal(floats(checkpoint.read_rows(name, start, stop)), rounded[name][start:stop])


def test_configuration(tmp_path: Path) -> None:
    write_gguf(tmp_path / "Tiny-Model.Q4_K_M.gguf")
    write_gguf(tmp_path / "tied.gguf", TIED)
    checkpoint = GgufCheckpoint(tmp_path / "Tiny-Model.Q4_K_M.gguf")
    assert checkpoint.name == "Tiny-Model"
    expected = {**MODEL.config(), "rope_theta": 10000.0, "rope_scaling": None}
    assert checkpoint.config == {k: v for k, v in expected.items() if k in checkpoint.config}
    needed = set(expected) - {"architectures", "bos_token_id", "eos_token_id"}
    assert needed <= set(checkpoint.config)
    assert GgufCheckpoint(tmp_path / "tied.gguf").config["tie_word_embeddings"] is True


def test_linear_rope_scaling(tmp_path: Path) -> None:
    def scale(writer: GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    write_gguf(tmp_path / "m.gguf", metadata=scale)
    assert GgufCheckpoint(tmp_path / "m.gguf").config["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


def llama3_factors(dim: int, theta: float, factor: float, low: float, high: float, original: int) -> np.ndarray:
    """The divisors as llama.cpp's converter computes them."""
    frequencies = 1.0 / theta ** (np.arange(0, dim, 2) / dim)
    factors = []
    for frequency in frequencies:
        wavelength = 2 * np.pi / frequency
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


@pytest.mark.parametrize(("factor", "head_dim"), [(8.0, 128), (32.0, 64), (32.0, 128)])
def test_llama3_rope_scaling_is_derived_from_its_factors(tmp_path: Path, factor: float, head_dim: int) -> None:
    write_llama3(tmp_path / "m.gguf", llama3_factors(head_dim, 500000.0, factor, 1.0, 4.0, 8192), head_dim)
    assert GgufCheckpoint(tmp_path / "m.gguf").config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_rope_factors_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_llama3(tmp_path / "m.gguf", np.linspace(1, 4, 32, dtype=np.float32), 64)
    with pytest.raises(UnsupportedError, match="rope_freqs"):
        GgufCheckpoint(tmp_path / "m.gguf")


def write_llama3(path: Path, factors: np.ndarray, head_dim: int) -> None:
    """Metadata and rope factors alone: a checkpoint is lazy, and the configuration needs no more."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(131072)
    writer.add_embedding_length(head_dim * 4)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_other_scalings_and_head_sizes_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", metadata=lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE))
    with pytest.raises(UnsupportedError, match="longrope"):
        GgufCheckpoint(tmp_path / "m.gguf")
    write_gguf(tmp_path / "p.gguf", leave_out=frozenset({"rope.dimension_count"}), metadata=partial_rotation)
    with pytest.raises(UnsupportedError, match=r"rope\.dimension_count 8"):
        GgufCheckpoint(tmp_path / "p.gguf")


def partial_rotation(writer: GGUFWriter) -> None:
    writer.add_rope_dimension_count(8)


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.add_block_count(3)
    finish(writer)
    with pytest.raises(UnsupportedError, match="architecture 'mamba'") as caught:
        GgufCheckpoint(tmp_path / "m.gguf")
    assert "gemma3, " in str(caught.value.hint)


def test_a_mixture_of_experts_is_not_taken_for_a_llama(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", metadata=lambda w: w.add_expert_count(8))
    assert GgufCheckpoint(tmp_path / "m.gguf").config["model_type"] == "mixtral"


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", leave_out=frozenset({"attention.head_count"}))
    with pytest.raises(ModelError, match=r"llama\.attention\.head_count"):
        GgufCheckpoint(tmp_path / "m.gguf")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no\.gguf cannot be read: No such file"):
        GgufCheckpoint(tmp_path / "no.gguf")


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04 not a model at all"])
def test_not_a_gguf_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="not a GGUF file"):
        GgufCheckpoint(tmp_path / "m.gguf")


def test_truncation_is_found_wherever_the_file_ends(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", kind=Kind.Q4_0)
    content = (tmp_path / "m.gguf").read_bytes()
    header = GgufFile(tmp_path / "m.gguf").header_size
    cut = tmp_path / "cut.gguf"
    for size in (*range(4, header, 37), header, len(content) - 40):
        cut.write_bytes(content[:size])
        with pytest.raises(ModelError, match="truncated"):
            GgufCheckpoint(cut)


def test_random_damage_never_escapes_our_errors(tmp_path: Path) -> None:
    """A flipped byte in the header is survived, or reported; it is no traceback, no hang and no huge allocation."""
    write_gguf(tmp_path / "m.gguf", kind=Kind.Q4_0)
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    header = GgufFile(tmp_path / "m.gguf").header_size
    random = np.random.default_rng(7)
    bad = tmp_path / "bad.gguf"
    refused = 0
    for at, bit in zip(random.integers(0, header, 400), random.integers(0, 8, 400), strict=True):
        damaged = content.copy()
        damaged[at] ^= 1 << bit
        bad.write_bytes(damaged)
        try:
            GgufCheckpoint(bad).write_text_files(tmp_path)
        except ModelError:
            refused += 1
    assert refused > 50


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    with (tmp_path / "m.gguf").open("r+b") as file:
        file.truncate(checkpoint.path.stat().st_size - 64)
    with pytest.raises(ModelError, match="truncated within tensor"):
        checkpoint.read("lm_head.weight")


def patch_type(path: Path, name: str, code: int) -> None:
    """Changes the type of one tensor in the table: it stands behind the name, the number of axes and the axes."""
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
    axes = struct.unpack_from("<I", content, at)[0]
    struct.pack_into("<I", content, at + 4 + 8 * axes, code)
    path.write_bytes(content)


@pytest.mark.parametrize(("code", "what"), [(99, "unknown type 99"), (int(Kind.I32), "type I32")])
def test_unknown_tensor_type(tmp_path: Path, code: int, what: str) -> None:
    write_gguf(tmp_path / "m.gguf")
    patch_type(tmp_path / "m.gguf", "blk.1.ffn_up.weight", code)
    with pytest.raises(UnsupportedError, match=rf"blk\.1\.ffn_up\.weight of the {what}") as caught:
        GgufCheckpoint(tmp_path / "m.gguf")
    assert "Q4_1" in str(caught.value.hint)


@pytest.mark.parametrize("version", [1, 4, 3 << 24])
def test_unknown_version(tmp_path: Path, version: int) -> None:
    write_gguf(tmp_path / "m.gguf")
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    struct.pack_into("<I", content, 4, version)
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(UnsupportedError, match=f"version {version}"):
        GgufCheckpoint(tmp_path / "m.gguf")


def write_parts(folder: Path, count: int = 3) -> tuple[Path, dict[str, np.ndarray]]:
    """MODEL in parts as llama.cpp's splitter writes them, and what it holds."""
    rounded = write_gguf(folder / "whole.gguf", kind=Kind.Q8_0)
    whole = gguf.GGUFReader(folder / "whole.gguf")
    paths = [folder / f"Tiny.Q8_0-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]
    for i, path in enumerate(paths):
        writer = GGUFWriter(path, "llama")
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(whole.tensors))
        for field in whole.fields.values() if i == 0 else ():
            if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                inner = field.types[-1] if len(field.types) > 1 else None
                writer.add_key_value(field.name, field.contents(), field.types[0], inner)
        for tensor in whole.tensors[i::count]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        finish(writer)
    return paths[0], rounded


def test_the_parts_of_a_split_model_are_one(tmp_path: Path) -> None:
    first, rounded = write_parts(tmp_path)
    checkpoint, whole = GgufCheckpoint(first), GgufCheckpoint(tmp_path / "whole.gguf")
    assert (checkpoint.name, checkpoint.config, checkpoint.tensors) == ("Tiny", whole.config, whole.tensors)
    for name, expected in rounded.items():
        np.testing.assert_array_equal(floats(checkpoint.read(name)), expected, err_msg=name)
    before = checkpoint.fingerprint()
    last = first.with_name("Tiny.Q8_0-00003-of-00003.gguf")
    last.write_bytes(last.read_bytes() + b"x")
    assert GgufCheckpoint(first).fingerprint() != before


def test_parts_that_are_no_whole_are_refused(tmp_path: Path) -> None:
    first, _ = write_parts(tmp_path)
    second, third = (first.with_name(f"Tiny.Q8_0-0000{i}-of-00003.gguf") for i in (2, 3))
    with pytest.raises(ModelError, match="not the first part") as caught:
        GgufCheckpoint(second)
    assert first.name in str(caught.value.hint)
    (tmp_path / "renamed.gguf").write_bytes(first.read_bytes())
    with pytest.raises(ModelError, match="one of 3 parts of a split GGUF model, but not called so"):
        GgufCheckpoint(tmp_path / "renamed.gguf")
    content = third.read_bytes()
    third.write_bytes(second.read_bytes())
    with pytest.raises(ModelError, match="does not belong to"):
        GgufCheckpoint(first)
    third.write_bytes(content)
    write_gguf(second)
    with pytest.raises(ModelError, match="does not belong to"):
        GgufCheckpoint(first)
    second.unlink()
    with pytest.raises(ModelError, match=r"00002-of-00003\.gguf cannot be read"):
        GgufCheckpoint(first)


def test_heads_that_do_not_divide_the_rows(tmp_path: Path) -> None:
    def count(writer: GGUFWriter) -> None:
        writer.add_head_count(5)
        writer.add_key_length(16)

    write_gguf(tmp_path / "m.gguf", metadata=count, leave_out=frozenset({"attention.head_count"}))
    with pytest.raises(ModelError, match="5 heads"):
        GgufCheckpoint(tmp_path / "m.gguf")


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    first = GgufCheckpoint(tmp_path / "m.gguf").fingerprint()
    assert GgufCheckpoint(tmp_path / "m.gguf").fingerprint() == first
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    content[-100] ^= 1
    (tmp_path / "m.gguf").write_bytes(content)
    assert GgufCheckpoint(tmp_path / "m.gguf").fingerprint() != first
