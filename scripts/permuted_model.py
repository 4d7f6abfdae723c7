"""Writes a GGUF model as a Hugging Face folder of floats whose channels lie in another order.

The model computes the same function. But no group of 32 neighbouring weights is one of the file's own any more, so that
quantizing it again is as hard as quantizing a model that was never quantized: a matrix out of a Q4_1 file, left as it
is, would come back exactly.

    python scripts/permuted_model.py MODEL FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from cupola.quantize.formats import Quantized
from cupola.quantize.rounding import dequantize
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.source import open_checkpoint

HIDDEN_COLUMNS = ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
HIDDEN_ROWS = ("o_proj", "down_proj", "norm", "layernorm")


def write_permuted(checkpoint: Checkpoint, folder: Path) -> None:
    """config.json, model.safetensors (float32), tokenizer.json and its companions, of a Llama or a Gemma 3."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text_files(folder)
    (folder / "config.json").write_text(json.dumps(dict(checkpoint.config), indent=2))
    weights = {name: _floats(checkpoint, name) for name in checkpoint.tensors}
    random = np.random.default_rng(0)
    hidden = random.permutation(weights["model.norm.weight"].shape[0])
    for name in weights:
        kind = name.split(".")[-2]
        if kind in HIDDEN_COLUMNS:
            weights[name] = weights[name][:, hidden]
        elif kind.endswith(HIDDEN_ROWS) and kind not in ("q_norm", "k_norm"):
            weights[name] = weights[name][hidden]
    layer = 0
    while f"model.layers.{layer}.mlp.down_proj.weight" in weights:
        _permute_inside(weights, f"model.layers.{layer}.", checkpoint.config, random)
        layer += 1
    plain = {name: np.ascontiguousarray(values) for name, values in weights.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})


def _permute_inside(weights: dict[str, np.ndarray], layer: str, config: object, random: np.random.Generator) -> None:
    """The network's channels, and the dimensions of every head of values: what only two matrices see."""
    down, value, output = (
        f"{layer}{name}.weight" for name in ("mlp.down_proj", "self_attn.v_proj", "self_attn.o_proj")
    )
    order = random.permutation(weights[down].shape[1])
    for name in ("gate_proj", "up_proj"):
        weights[f"{layer}mlp.{name}.weight"] = weights[f"{layer}mlp.{name}.weight"][order]
    weights[down] = weights[down][:, order]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]  # type: ignore[index]
    dim = weights[output].shape[1] // heads
    orders = np.stack([random.permutation(dim) for _ in range(kv_heads)])
    weights[value] = weights[value][(orders + dim * np.arange(kv_heads)[:, None]).ravel()]
    columns = np.repeat(orders, heads // kv_heads, axis=0) + dim * np.arange(heads)[:, None]
    weights[output] = weights[output][:, columns.ravel()]


def _floats(checkpoint: Checkpoint, name: str) -> np.ndarray:
    rows = checkpoint.tensors[name].shape[0]
    values = checkpoint.read_rows(name, 0, rows, exact=True)
    return np.asarray(dequantize(values) if isinstance(values, Quantized) else values, np.float32)


if __name__ == "__main__":
    write_permuted(open_checkpoint(sys.argv[1]), Path(sys.argv[2]))
