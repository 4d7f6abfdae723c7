"""Qwen 1.5 and 2 MoE (a gated expert for every row beside the chosen ones) and Qwen 3 MoE (norms of q and k)."""

from __future__ import annotations

from dataclasses import replace

from cupola.errors import UnsupportedError
from cupola.kernels.routing import Routing
from cupola.models.config import Config
from cupola.models.experts import Experts
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import alike, head_dim, standard


def read_qwen2_moe(config: Config) -> DecoderSpec:
    """The shape out of a Qwen 2 MoE config.json."""
    biases = Biases(qkv=config.flag("qkv_bias", True))
    spec = standard(config, attentions=alike(config, _attention(config)), biases=biases)
    return replace(spec, experts=_experts(config, config.integer("shared_expert_intermediate_size", 5632)))


def read_qwen3_moe(config: Config) -> DecoderSpec:
    """The shape out of a Qwen 3 MoE config.json."""
    bias = config.flag("attention_bias", False)
    attention = replace(_attention(config), qk_norm="head")
    spec = standard(config, attentions=alike(config, attention), biases=Biases(qkv=bias, output=bias))
    return replace(spec, experts=_experts(config, 0))


def _attention(config: Config) -> Attention:
    if config.flag("use_sliding_window", False):
        raise UnsupportedError("config.json: `use_sliding_window` is true, which no published mixture of Qwen's has")
    return Attention(rotary(config, head_dim(config)))


def _experts(config: Config, shared: int) -> tuple[Experts | None, ...]:
    """Of each layer; every `decoder_sparse_step`-th has experts, unless `mlp_only_layers` lists it."""
    routing = Routing(
        config.integer("num_experts"),
        config.integer("num_experts_per_tok"),
        renormalised=config.flag("norm_topk_prob", False),
        shared_gate=shared > 0,
    )
    experts = Experts(config.integer("moe_intermediate_size"), routing, shared)
    step = max(config.integer("decoder_sparse_step", 1), 1)
    dense = config.numbers("mlp_only_layers") if config.has("mlp_only_layers") else ()
    return tuple(
        experts if (i + 1) % step == 0 and i not in dense else None for i in range(config.integer("num_hidden_layers"))
    )


QWEN2_MOE = Architecture(
    name="qwen2_moe",
    model_types=("qwen2_moe",),
    read=read_qwen2_moe,
    models="Qwen 1.5 MoE A2.7B, Qwen 2 57B A14B",
)
QWEN3_MOE = Architecture(
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    read=read_qwen3_moe,
    models="Qwen 3 30B A3B and 235B A22B, Qwen 3 Coder",
)
