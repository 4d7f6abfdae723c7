"""Tiny random Llama models, made from a seed: the same folder wherever and whenever it is made.

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
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

PREFILL = 48  # tokens of the prompt
DECODE = 32  # teacher-forced tokens after it


@dataclass(frozen=True, slots=True)
class TinyModel:
    """The sizes of one tiny model; `rope` and `extra` are further keys of its config.json."""

    name: str
    seed: int
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    intermediate: int = 96
    layers: int = 2
    vocab: int = 96
    tied: bool = True
    rope: dict[str, object] = field(default_factory=lambda: {"rope_theta": 10000.0})
    extra: dict[str, object] = field(default_factory=dict)

    def config(self) -> dict[str, object]:
        """The contents of config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocab,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **self.rope,
            **self.extra,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the checkpoint, in a fixed order."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden)}
        for layer in range(self.layers):
            p = f"model.layers.{layer}."
            shapes |= {
                p + "input_layernorm.weight": (self.hidden,),
                p + "self_attn.q_proj.weight": (q, self.hidden),
                p + "self_attn.k_proj.weight": (kv, self.hidden),
                p + "self_attn.v_proj.weight": (kv, self.hidden),
                p + "self_attn.o_proj.weight": (self.hidden, q),
                p + "post_attention_layernorm.weight": (self.hidden,),
                p + "mlp.gate_proj.weight": (self.intermediate, self.hidden),
                p + "mlp.up_proj.weight": (self.intermediate, self.hidden),
                p + "mlp.down_proj.weight": (self.hidden, self.intermediate),
            }
        shapes["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab, self.hidden)
        return shapes

    def weights(self) -> dict[str, np.ndarray]:
        """Random float32 weights under Hugging Face names, large enough that every part shows in the logits."""
        random = np.random.default_rng(self.seed)
        weights = {}
        for name, shape in self.shapes().items():
            noise = random.standard_normal(shape, dtype=np.float32)
            if len(shape) == 1:
                weights[name] = 1 + np.float32(0.2) * noise
            else:
                weights[name] = np.float32(2 / math.sqrt(shape[1])) * noise
        return weights

    def token_ids(self) -> list[int]:
        """PREFILL + DECODE ids to run through the model."""
        return np.random.default_rng(self.seed + 1).integers(3, self.vocab, PREFILL + DECODE).tolist()

    def write(self, folder: Path) -> None:
        """Writes a Hugging Face folder; the tokenizer's words are t0, t1, ..."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config(), indent=2))
        save_file(self.weights(), folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer = Tokenizer(WordLevel({f"t{i}": i for i in range(self.vocab)}, unk_token="t0"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))


TINY_MODELS = (
    TinyModel("gqa-tied", seed=10),
    TinyModel("mha-untied", seed=20, kv_heads=4, tied=False),
    TinyModel("mqa", seed=30, kv_heads=1, layers=3),
    TinyModel("odd-vocabulary", seed=40, vocab=101, tied=False),
    TinyModel("wide-heads", seed=50, heads=4, head_dim=32, kv_heads=2),  # heads * head_dim != hidden
    TinyModel("three-heads", seed=60, hidden=96, heads=6, kv_heads=3),  # as SmolLM2: neither is a power of two
    TinyModel("odd-width", seed=70, hidden=48, heads=3, kv_heads=1, intermediate=80),  # no multiple of a group of 32
    TinyModel("rope-theta", seed=80, rope={"rope_theta": 500000.0}, extra={"rms_norm_eps": 1e-2}),
    TinyModel(
        "rope-linear",
        seed=90,
        rope={"rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ),
    TinyModel(
        "rope-llama3",
        seed=100,
        # The keys of transformers 5: one table in place of rope_theta and rope_scaling.
        rope={
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
)
