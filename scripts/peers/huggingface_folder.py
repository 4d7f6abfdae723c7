"""Writes a GGUF model as a folder in Hugging Face's layout, for peers that only read such folders.

    python scripts/peers/huggingface_folder.py MODEL.gguf FOLDER

It runs in Cupola's environment and needs no torch: Cupola's own reader gives the weights in Hugging Face's names and
order, dequantized exactly into float32, and the tokenizer. transformers could read the file too, but the tokenizer
that it derives from SmolLM2's file splits digits wrongly.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from cupola.quantize.formats import Quantized
from cupola.quantize.rounding import dequantize
from cupola.weights.source import open_checkpoint


def write_folder(model: Path, folder: Path) -> None:
    """config.json, model.safetensors (float32), tokenizer.json and its companions.

    Raises:
        CupolaError: the file cannot be read.
    """
    checkpoint = open_checkpoint(str(model))
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text_files(folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "config.json").write_text(json.dumps(_config(checkpoint.config, generation), indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(folder, generation), indent=2))
    weights = {name: _plain(checkpoint.read(name)) for name in checkpoint.tensors}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _plain(values: np.ndarray | Quantized) -> np.ndarray:
    return np.ascontiguousarray(dequantize(values) if isinstance(values, Quantized) else values, np.float32)


def _config(config: Mapping[str, object], generation: Mapping[str, object]) -> dict[str, object]:
    """What transformers wants to know beyond what a GGUF file says."""
    ends = generation["eos_token_id"]
    return {
        **config,
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": "float32",
        "bos_token_id": generation.get("bos_token_id"),
        "eos_token_id": ends[0] if isinstance(ends, list) else ends,
    }


def _tokenizer_config(folder: Path, generation: Mapping[str, object]) -> dict[str, object]:
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    texts = {number: text for text, number in tokens.items()}
    ends = generation["eos_token_id"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": texts.get(generation.get("bos_token_id")),
        "eos_token": texts.get(ends[0] if isinstance(ends, list) else ends),
    }


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
