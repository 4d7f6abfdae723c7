"""llama.cpp's architectures that are mixtures of experts, one entry each (`gguf_family.Family`).

Its converter stacks what experts have in common: gates, ups and downs of a layer are three tensors
[experts, rows, inputs].
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cupola.weights.gguf_family import PARTS, Family, Values

EXPERT_PARTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
    "ffn_gate_up_exps": "mlp.experts.gate_up_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_USED = {"num_experts_per_tok": "expert_used_count"}
EXPERT_KEYS = _USED | {"num_local_experts": "expert_count"}
_QWEN_KEYS = _USED | {"num_experts": "expert_count", "moe_intermediate_size": "expert_feed_forward_length"}


def _without_truncation(config: Values) -> Values:
    """gpt-oss's yarn interpolates between broken components; files do not say so."""
    scaling = config.get("rope_scaling")
    return {"rope_scaling": {**scaling, "truncate": False}} if isinstance(scaling, Mapping) else {}


MIXTURES: Mapping[str, Family] = MappingProxyType(
    {
        "qwen2moe": Family(
            "qwen2_moe",
            keys=_QWEN_KEYS | {"shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
            flags={"qkv_bias": "attn_q.bias"},
            fixed={"norm_topk_prob": False},
            parts=PARTS | EXPERT_PARTS,
        ),
        "qwen3moe": Family(
            "qwen3_moe",
            keys=_QWEN_KEYS,
            flags={"attention_bias": "attn_q.bias"},
            fixed={"norm_topk_prob": True},
            parts=PARTS | EXPERT_PARTS,
        ),
        "olmoe": Family(
            "olmoe",
            keys=_USED | {"num_experts": "expert_count"},
            flags={"attention_bias": "attn_q.bias"},
            fixed={"norm_topk_prob": False},
            parts=PARTS | EXPERT_PARTS,
        ),
        "granitemoe": Family(
            "granitemoe",
            keys=EXPERT_KEYS
            | {
                "shared_intermediate_size": "expert_shared_feed_forward_length",
                "attention_multiplier": "attention.scale",
                "embedding_multiplier": "embedding_scale",
                "residual_multiplier": "residual_scale",
                "logits_scaling": "logit_scale",
            },
            flags={"attention_bias": "attn_q.bias"},
            parts=PARTS | EXPERT_PARTS,
            interleaved=True,
        ),
        "gpt-oss": Family(
            "gpt_oss",
            keys=EXPERT_KEYS,
            flags={"attention_bias": "attn_q.bias"},
            derived=_without_truncation,
            parts=PARTS | EXPERT_PARTS | {"post_attention_norm": "post_attention_layernorm"},
            whole={"attn_sinks.weight": "self_attn.sinks"},
        ),
    }
)
