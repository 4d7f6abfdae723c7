"""llama.cpp's `deepseek2`: latent attention and experts, as DeepSeek-V2 and V3 have them.

Sizes of heads are those of keys before they become latents (`*_mla`); files of before 2025-04 have these under the keys
of other models, and one matrix where newer ones have two, of which that of keys is turned round.
"""

from __future__ import annotations

from collections.abc import Mapping

from cupola.weights.gguf_experts import EXPERT_PARTS
from cupola.weights.gguf_family import PARTS, Family, Values

_SIGMOID = 2  # of `expert_gating_func`; V2 has softmax, and older files of it no such key


def _sizes_and_routing(config: Values) -> Values:
    """What Hugging Face calls otherwise, or computes differently."""
    query = _first(config, "qk_head_dim", "head_dim")
    sigmoid = config.get("gating_function") == _SIGMOID
    found: dict[str, object] = {
        "model_type": "deepseek_v3" if sigmoid else "deepseek_v2",
        "qk_nope_head_dim": query - _first(config, "qk_rope_head_dim"),
        "v_head_dim": _first(config, "v_head_dim", "value_length"),
        "norm_topk_prob": bool(config.get("norm_topk_prob", False)),
    }
    if not sigmoid and config.get("n_group", 1) != 1:
        found["topk_method"] = "group_limited_greedy"
    scaling = config.get("rope_scaling")
    if isinstance(scaling, Mapping) and "mscale_all_dim" in scaling:
        # A tenth is in the file; llama.cpp takes `mscale` for the same.
        grown = round(float(str(scaling["mscale_all_dim"])) * 10, 6)
        found["rope_scaling"] = {**scaling, "mscale": grown, "mscale_all_dim": grown}
    return found


def _first(config: Values, *keys: str) -> int:
    """The first of these that the file has; 0, which no model has, where it has none."""
    return int(str(next((config[key] for key in keys if key in config), 0)))


DEEPSEEK2 = Family(
    "deepseek_v2",
    keys={
        "kv_lora_rank": "attention.kv_lora_rank",
        "q_lora_rank": "attention.q_lora_rank",
        "qk_head_dim": "attention.key_length_mla",
        "qk_rope_head_dim": "rope.dimension_count",
        "v_head_dim": "attention.value_length_mla",
        "value_length": "attention.value_length",
        "first_k_dense_replace": "leading_dense_block_count",
        "moe_intermediate_size": "expert_feed_forward_length",
        "n_routed_experts": "expert_count",
        "n_shared_experts": "expert_shared_count",
        "num_experts_per_tok": "expert_used_count",
        "n_group": "expert_group_count",
        "topk_group": "expert_group_used_count",
        "routed_scaling_factor": "expert_weights_scale",
        "norm_topk_prob": "expert_weights_norm",
        "gating_function": "expert_gating_func",
    },
    derived=_sizes_and_routing,
    parts=PARTS
    | {part: name.replace("shared_expert", "shared_experts") for part, name in EXPERT_PARTS.items()}
    | {
        "attn_q_a": "self_attn.q_a_proj",
        "attn_q_a_norm": "self_attn.q_a_layernorm",
        "attn_q_b": "self_attn.q_b_proj",
        "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
        "attn_kv_a_norm": "self_attn.kv_a_layernorm",
        "attn_kv_b": "self_attn.kv_b_proj",
        "attn_k_b": "self_attn.k_b_proj",
        "attn_v_b": "self_attn.v_b_proj",
    },
    whole={"exp_probs_b.bias": "mlp.gate.e_score_correction_bias"},
    own_head_sizes=True,
)
