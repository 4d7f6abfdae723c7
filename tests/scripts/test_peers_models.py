"""What is made for the peers: models with random weights, and Hugging Face folders of GGUF files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from cupola.quantize.formats import Quantized
from cupola.quantize.rounding import dequantize
from cupola.weights.gguf import GgufCheckpoint
from peers.huggingface_folder import write_folder
from peers.random_model import Shape, write_model

SMALL = Shape(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=96, vocabulary=40, context=256, head_size=16)
TOKENS = ["<|start|>", "<|end|>", "a", "b", "ab", "1", "2"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A file with a tokenizer and nothing else."""
    path = tmp_path / "tokenizer.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def plain(checkpoint: GgufCheckpoint, name: str) -> np.ndarray:
    values = checkpoint.read(name)
    return dequantize(values) if isinstance(values, Quantized) else values


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_random_weights_are_sane(kind: str, tokenizer: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", SMALL, kind, tokenizer)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    assert checkpoint.config["tie_word_embeddings"]
    assert checkpoint.config["vocab_size"] == 40
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"):
        weights = plain(checkpoint, name)
        assert weights.std() == pytest.approx(1 / math.sqrt(weights.shape[1]), rel=0.05)
        assert abs(weights.mean()) < 0.1 * weights.std()
    assert (plain(checkpoint, "model.norm.weight") == 1).all()


def test_random_models_are_the_same_each_time(tokenizer: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / name, SMALL, "Q4_0", tokenizer)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_folder_holds_the_files_weights_and_tokenizer(tokenizer: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", SMALL, "Q8_0", tokenizer)
    write_folder(tmp_path / "m.gguf", tmp_path / "folder")
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    weights = load_file(tmp_path / "folder/model.safetensors")
    assert set(weights) == set(checkpoint.tensors)
    for name, values in weights.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, plain(checkpoint, name))
    config = json.loads((tmp_path / "folder/config.json").read_text())
    assert (config["architectures"], config["bos_token_id"], config["eos_token_id"]) == (["LlamaForCausalLM"], 0, 1)
    tokens = json.loads((tmp_path / "folder/tokenizer_config.json").read_text())
    assert (tokens["bos_token"], tokens["eos_token"]) == ("<|start|>", "<|end|>")
    ids = Tokenizer.from_file(str(tmp_path / "folder/tokenizer.json")).encode("ab12").ids
    assert [TOKENS[number] for number in ids] == ["ab", "1", "2"]
