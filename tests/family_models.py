"""Tiny random models of all families, made from a seed: the same folder wherever and whenever it is made.

`scripts/goldens` runs them through transformers, which also says what tensors each has (both in
`tests/goldens/families`, two files a model); `tests/numerics` runs them through a compiled library. Both environments
import this file: it needs no more than they share. A config.json here has the keys that the family's checkpoints have,
new or old.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

Config = dict[str, object]
Shapes = Mapping[str, Sequence[int]]  # tensor -> its shape

VOCABULARY = 96
PREFILL = 40  # tokens of the prompt; longer than every window
DECODE = 12  # teacher-forced tokens after it
GOLDENS = Path(__file__).parent / "goldens" / "families"

_SIZES: Config = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_WIDE: Config = _SIZES | {"hidden_size": 128, "head_dim": 32}  # so that a part of a head is still whole vectors
_QUARTER: Config = _SIZES | {"hidden_size": 256, "head_dim": 64}
YARN: Config = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}


def _of(model_type: str, sizes: Config = _SIZES, **changes: object) -> Config:
    return {"model_type": model_type, **sizes, **changes}


_LATENT: Config = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 48,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "routed_scaling_factor": 1.5,
    "n_group": 4,
    "topk_group": 2,
    "tie_word_embeddings": False,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MSCALES: Config = {"mscale": 0.9, "mscale_all_dim": 0.7}

FAMILIES: Mapping[str, Config] = {
    "llama-biases": _of("llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "llama-yarn": _of("llama", rope_parameters=YARN),
    "mistral": _of("mistral", sliding_window=16),
    "ministral": _of("ministral", sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
    "qwen2": _of("qwen2", tie_word_embeddings=True),
    "qwen2-window": _of("qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=1),
    "qwen3": _of("qwen3", head_dim=32),
    "gemma": _of("gemma"),
    "gemma2": _of(
        "gemma2", sliding_window=16, query_pre_attn_scalar=24, attn_logit_softcapping=5.0, final_logit_softcapping=8.0
    ),
    "gemma3": _of(
        "gemma3_text",
        sliding_window=16,
        query_pre_attn_scalar=24,
        num_hidden_layers=3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        },
    ),
    "phi": _of(
        "phi",
        _WIDE,
        num_key_value_heads=4,
        hidden_act="gelu_new",
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
    "phi3": _of("phi3", sliding_window=24),
    "phi3-longrope": _of(
        "phi3",
        _QUARTER,
        max_position_embeddings=32,
        original_max_position_embeddings=16,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "original_max_position_embeddings": 16,
            "short_factor": [1.0 + 0.1 * i for i in range(16)],
            "long_factor": [1.5 + 0.2 * i for i in range(16)],
        },
    ),
    "smollm3": _of("smollm3", num_hidden_layers=3, no_rope_layers=[1, 0, 1]),
    "olmo2": _of("olmo2", num_key_value_heads=4),
    "olmo3": _of(
        "olmo3",
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"full_attention": YARN, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    ),
    "granite": _of(
        "granite", embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.5
    ),
    "stablelm": _of(
        "stablelm",
        _QUARTER,
        use_qkv_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    ),
    "stablelm-parallel": _of(
        "stablelm",
        _QUARTER,
        use_parallel_residual=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    ),
    "cohere": _of("cohere", logit_scale=0.25),
    "cohere2": _of("cohere2", logit_scale=0.25, sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
    "glm": _of(
        "glm",
        _WIDE,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
    "glm4": _of(
        "glm4",
        _WIDE,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
    "starcoder2": _of("starcoder2", sliding_window=16),
    "mixtral": _of("mixtral", num_local_experts=5, num_experts_per_tok=2, sliding_window=16),
    "qwen2-moe": _of(
        "qwen2_moe",
        num_experts=6,
        num_experts_per_tok=3,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=64,
    ),
    "qwen3-moe": _of(
        "qwen3_moe", num_experts=9, num_experts_per_tok=4, moe_intermediate_size=48, norm_topk_prob=True, head_dim=32
    ),
    "granite-moe": _of(
        "granitemoe",
        num_local_experts=4,
        num_experts_per_tok=2,
        embedding_multiplier=3.0,
        attention_multiplier=0.2,
        residual_multiplier=0.4,
        logits_scaling=2.5,
    ),
    "granite-moe-shared": _of(
        "granitemoeshared",
        num_local_experts=4,
        num_experts_per_tok=3,
        shared_intermediate_size=48,
        residual_multiplier=0.4,
    ),
    "olmoe": _of("olmoe", num_key_value_heads=4, num_experts=8, num_experts_per_tok=3, clip_qkv=None),
    "gpt-oss": _of(
        "gpt_oss",
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=YARN | {"truncate": False, "beta_fast": 32.0, "beta_slow": 1.0},
    ),
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_embd": 64,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 256,
        "activation_function": "gelu_new",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "gpt-neox": _of(
        "gpt_neox",
        _QUARTER,
        num_key_value_heads=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    ),
    "gpt-neox-serial": _of(
        "gpt_neox",
        _QUARTER,
        num_key_value_heads=4,
        use_parallel_residual=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    ),
    "deepseek2": _of(
        "deepseek_v2", _LATENT, q_lora_rank=None, first_k_dense_replace=1, topk_method="group_limited_greedy"
    ),
    "deepseek3": _of("deepseek_v3", _LATENT, q_lora_rank=32, first_k_dense_replace=1, rope_parameters=YARN | _MSCALES),
    "llama3": _of(
        "llama",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "llama-dynamic": _of("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}),
    "cohere-norms": _of("cohere", logit_scale=0.25, use_qk_norm=True),
    "stablelm-norms": _of(
        "stablelm",
        _QUARTER,
        qk_layernorm=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    ),
    "granite4": _of(
        "granitemoehybrid",
        embedding_multiplier=3.0,
        attention_multiplier=0.2,
        residual_multiplier=0.4,
        logits_scaling=2.5,
        num_local_experts=0,
        num_experts_per_tok=0,
        shared_intermediate_size=112,
        position_embedding_type="rope",
        layer_types=["attention", "attention"],
        mamba_n_heads=8,
    ),
    "exaone4": _of("exaone4", sliding_window=16, sliding_window_pattern=2),
    "internlm3": _of("internlm3", qkv_bias=True, bias=True),
    "ministral3": _of("ministral3", rms_norm_eps=1e-5, rope_parameters=YARN | _MSCALES | {"llama_4_scaling_beta": 0.1}),
    "internlm2": _of("internlm2", tie_word_embeddings=False),
}


def token_ids(name: str) -> list[int]:
    """PREFILL + DECODE ids to run through a model."""
    return np.random.default_rng(zlib.crc32(name.encode())).integers(3, VOCABULARY, PREFILL + DECODE).tolist()


def llama_cpp_prompt(name: str) -> list[int]:
    """The prompt that llama.cpp continues with DECODE tokens; it refuses one beyond the model's context."""
    context = FAMILIES.get(name, _SIZES).get("max_position_embeddings", PREFILL + DECODE)
    assert isinstance(context, int)
    return token_ids(name)[: min(PREFILL, context - DECODE)]


def golden_shapes(name: str) -> Shapes:
    """The tensors of the model, as transformers names them."""
    shapes: Shapes = json.loads((GOLDENS / f"{name}.json").read_text())
    return shapes


def golden_logits(name: str) -> np.ndarray:
    """transformers' logits: float32 [PREFILL + DECODE, VOCABULARY]."""
    logits: np.ndarray = np.load(GOLDENS / f"{name}.npz")["logits"]
    if logits.shape != (PREFILL + DECODE, VOCABULARY):
        raise ValueError(f"{name}.npz has logits of shape {logits.shape}")
    return logits


def weights(name: str, shapes: Shapes) -> dict[str, np.ndarray]:
    """Random float32 weights, large enough that every part shows in the logits; each tensor by its own name."""
    return {tensor: _random(f"{name}/{tensor}", tuple(shape)) for tensor, shape in shapes.items()}


def _random(key: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if len(shape) > 1:
        return np.float32(1.5 / math.sqrt(shape[-1])) * noise
    return (np.float32(0) if key.endswith("bias") or "gemma" in key else np.float32(1)) + np.float32(0.2) * noise


def write(name: str, shapes: Shapes, folder: Path) -> None:
    """Writes a Hugging Face folder; the tokenizer's words are t0, t1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(FAMILIES[name], indent=2))
    save_file(weights(name, shapes), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer(WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
