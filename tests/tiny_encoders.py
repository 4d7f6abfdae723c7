"""Tiny random BERT models, made from a seed: the same folder wherever and whenever it is made.

`scripts/goldens` runs them through transformers, `tests/numerics` through a compiled library. Each differs from its
neighbours in one thing that can go wrong. Both environments import this file: it needs no more than they share.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing

LENGTHS = (1, 2, 7, 8, 9, 30, 61, 150)  # tokens of the texts


@dataclass(frozen=True, slots=True)
class TinyEncoder:
    """The sizes of one tiny encoder; `extra` are further keys of its config.json."""

    name: str
    seed: int
    pooling: str = "mean"
    model_type: str = "bert"
    hidden: int = 64
    heads: int = 4
    intermediate: int = 96
    layers: int = 2
    vocab: int = 96
    positions: int = 160
    types: int = 2
    prefix: str = ""
    norm_names: tuple[str, str] = ("weight", "bias")
    extra: dict[str, object] = field(default_factory=dict)

    def config(self) -> dict[str, object]:
        """The contents of config.json."""
        return {
            "model_type": self.model_type,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.positions,
            "type_vocab_size": self.types,
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu",
            "pad_token_id": 1 if self.model_type == "roberta" else 0,
            **self.extra,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the checkpoint, in a fixed order, under the names of today."""
        h, f = self.hidden, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab, h),
            "embeddings.position_embeddings.weight": (self.positions, h),
            "embeddings.token_type_embeddings.weight": (self.types, h),
        }
        norms, linears = ["embeddings"], {}
        for layer in range(self.layers):
            p = f"encoder.layer.{layer}."
            norms += [p + "attention.output", p + "output"]
            linears |= {p + f"attention.self.{name}": (h, h) for name in ("query", "key", "value")}
            linears |= {
                p + "attention.output.dense": (h, h),
                p + "intermediate.dense": (f, h),
                p + "output.dense": (h, f),
            }
        for name, shape in linears.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in norms:
            shapes |= {f"{name}.LayerNorm.weight": (h,), f"{name}.LayerNorm.bias": (h,)}
        return shapes

    def weights(self) -> dict[str, np.ndarray]:
        """Random float32 weights, large enough that every part shows in the vectors."""
        random = np.random.default_rng(self.seed)
        weights = {}
        for name, shape in self.shapes().items():
            noise = random.standard_normal(shape, dtype=np.float32)
            if name.endswith("LayerNorm.weight"):
                weights[name] = 1 + np.float32(0.2) * noise
            elif len(shape) == 1:
                weights[name] = np.float32(0.3) * noise
            else:
                weights[name] = np.float32(2 / math.sqrt(shape[1])) * noise
        return weights

    def texts(self) -> list[list[int]]:
        """Token ids of texts of LENGTHS."""
        random = np.random.default_rng(self.seed + 1)
        return [random.integers(5, self.vocab, length).tolist() for length in LENGTHS]

    def write(self, folder: Path) -> None:
        """Writes a sentence-transformers folder; the tokenizer's words are t5, t6, ..."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "config.json", self.config())
        names = dict(zip(("weight", "bias"), self.norm_names, strict=True))
        renamed = {}
        for name, tensor in self.weights().items():
            head, _, last = name.rpartition(".")
            renamed[self.prefix + (f"{head}.{names[last]}" if head.endswith("LayerNorm") else name)] = tensor
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        specials = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
        vocabulary = specials | {f"t{i}": i for i in range(5, self.vocab)}
        tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        tokenizer.decoder = WordPieceDecoder()
        tokenizer.save(str(folder / "tokenizer.json"))
        steps = [("Transformer", ""), ("Pooling", "1_Pooling")]
        modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in steps]
        _write_json(folder / "modules.json", modules)
        (folder / "1_Pooling").mkdir(exist_ok=True)
        flags = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
        pooling = {f"pooling_mode_{flag}": how == self.pooling for how, flag in flags.items()}
        _write_json(folder / "1_Pooling" / "config.json", pooling)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))


TINY_ENCODERS = (
    TinyEncoder("mean", seed=10),
    TinyEncoder("cls", seed=20, pooling="cls", layers=3),
    TinyEncoder("last", seed=30, pooling="last", heads=2),
    TinyEncoder("tanh", seed=40, extra={"hidden_act": "gelu_new"}),
    TinyEncoder("odd-sizes", seed=50, hidden=48, heads=6, intermediate=80, vocab=101, extra={"hidden_act": "relu"}),
    TinyEncoder("old-names", seed=60, prefix="bert.", norm_names=("gamma", "beta"), pooling="cls"),
    TinyEncoder("roberta", seed=70, model_type="roberta", types=1, positions=162, prefix="roberta."),
)
