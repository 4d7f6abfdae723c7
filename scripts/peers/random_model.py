"""Writes a GGUF model with random weights: the shape of a larger model, for speed only.

    python scripts/peers/random_model.py 0.5b Q4_0 MODEL.gguf --tokenizer SMOLLM2.gguf

The architecture is Llama's, with tied embeddings. Weights are drawn block by block in the quantized type itself, with
a spread of 1 / sqrt(inputs), so that activations stay near 1 in every layer. The tokenizer is another file's, filled up
with words that no text becomes; so prompts have the same tokens for every server, and answers are noise.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from cupola.weights.gguf_file import GgufFile

_GROUP = 32
_NORMAL = (
    1  # type of a filling token: of an unused one, llama.cpp shows no text, and a stream would seem to stand still
)
_SEED = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Llama model."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    context: int = 8192
    head_size: int = 64

    def matrices(self) -> Iterator[tuple[str, int, int]]:
        """Name, outputs and inputs of every matrix."""
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        yield "token_embd.weight", self.vocabulary, self.hidden
        for layer in range(self.layers):
            yield f"blk.{layer}.attn_q.weight", q, self.hidden
            yield f"blk.{layer}.attn_k.weight", kv, self.hidden
            yield f"blk.{layer}.attn_v.weight", kv, self.hidden
            yield f"blk.{layer}.attn_output.weight", self.hidden, q
            yield f"blk.{layer}.ffn_gate.weight", self.intermediate, self.hidden
            yield f"blk.{layer}.ffn_up.weight", self.intermediate, self.hidden
            yield f"blk.{layer}.ffn_down.weight", self.hidden, self.intermediate

    def norms(self) -> Iterator[str]:
        """The names of all vectors; each has `hidden` members."""
        for layer in range(self.layers):
            yield f"blk.{layer}.attn_norm.weight"
            yield f"blk.{layer}.ffn_norm.weight"
        yield "output_norm.weight"


# Qwen2.5-0.5B's and Llama-3.2-1B's sizes.
SHAPES: Mapping[str, Shape] = {
    "0.5b": Shape(hidden=896, layers=24, heads=14, kv_heads=2, intermediate=4864, vocabulary=151_936),
    "1b": Shape(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192, vocabulary=128_256),
}


def write_model(path: Path, shape: Shape, kind: str, tokenizer: Path) -> None:
    """Write the file, the same bytes each time.

    Args:
        kind: Q4_0 or Q8_0, the type of all matrices.
        tokenizer: a GGUF file with a tokenizer of at most `shape.vocabulary` tokens.

    Raises:
        CupolaError: that file cannot be read.
    """
    random = np.random.default_rng(_SEED)
    writer = GGUFWriter(path, "llama")
    _add_sizes(writer, shape)
    _add_tokenizer(writer, GgufFile(tokenizer).metadata, shape.vocabulary)
    for name in shape.norms():
        writer.add_tensor(name, np.ones(shape.hidden, np.float32))
    for name, outputs, inputs in shape.matrices():
        blocks = _BLOCKS[kind](random, outputs * inputs // _GROUP, 1 / math.sqrt(inputs))
        writer.add_tensor(name, blocks.reshape(outputs, -1), raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: GGUFWriter, metadata: Mapping[str, object], vocabulary: int) -> None:
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, np.ndarray)
    missing = vocabulary - len(tokens)
    writer.add_tokenizer_model(str(metadata["tokenizer.ggml.model"]))
    writer.add_tokenizer_pre(str(metadata["tokenizer.ggml.pre"]))
    writer.add_token_list(tokens + [f"<|filling_{number}|>" for number in range(missing)])
    writer.add_token_types(types.tolist() + [_NORMAL] * missing)
    writer.add_token_merges(metadata["tokenizer.ggml.merges"])
    writer.add_bos_token_id(int(str(metadata["tokenizer.ggml.bos_token_id"])))
    writer.add_eos_token_id(int(str(metadata["tokenizer.ggml.eos_token_id"])))
    writer.add_add_bos_token(bool(metadata.get("tokenizer.ggml.add_bos_token", False)))


def _q4_0(random: np.random.Generator, count: int, deviation: float) -> np.ndarray:
    """Blocks of a float16 scale and 32 values from -7 to 7, two a byte, each stored plus 8."""
    values = random.integers(1, 16, (count, _GROUP // 2), np.uint8)
    values |= random.integers(1, 16, (count, _GROUP // 2), np.uint8) << 4
    return _with_scale(values, deviation / math.sqrt((15**2 - 1) / 12))


def _q8_0(random: np.random.Generator, count: int, deviation: float) -> np.ndarray:
    """Blocks of a float16 scale and 32 int8 values from -127 to 127."""
    values = random.integers(-127, 128, (count, _GROUP), np.int8).view(np.uint8)
    return _with_scale(values, deviation / math.sqrt((255**2 - 1) / 12))


def _with_scale(values: np.ndarray, scale: float) -> np.ndarray:
    blocks = np.empty((len(values), 2 + values.shape[1]), np.uint8)
    blocks[:, :2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    blocks[:, 2:] = values
    return blocks


_BLOCKS = {"Q4_0": _q4_0, "Q8_0": _q8_0}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a GGUF model with random weights.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("kind", choices=_BLOCKS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a GGUF file whose tokenizer is taken")
    chosen = parser.parse_args()
    write_model(chosen.file, SHAPES[chosen.shape], chosen.kind, chosen.tokenizer)


if __name__ == "__main__":
    main()
