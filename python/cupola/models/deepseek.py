"""DeepSeek-V2 and V3: latent attention, experts behind dense first layers (DeepSeek-AI, 2024).

V2 chooses experts by their softmax, in its large form within the best groups; V3 by sigmoids with a bias that only the
choice sees, within the groups whose two best add up to most. Layers past `num_hidden_layers`, which predict further
tokens, are left in the checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from cupola.errors import UnsupportedError
from cupola.kernels.latent_shape import LatentShape
from cupola.kernels.routing import Routing
from cupola.models.config import Config
from cupola.models.experts import ExpertNames, Experts
from cupola.models.latent import Latent
from cupola.models.rotary import mscale, rotary
from cupola.models.spec import Architecture, Attention, DecoderSpec
from cupola.models.standard import alike, standard

_NAMES = ExpertNames(
    shared=("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"),
    shared_down="mlp.shared_experts.down_proj",
)


def read_v2(config: Config) -> DecoderSpec:
    """The shape out of a DeepSeek-V2 config.json."""
    _only(config, "scoring_func", "softmax", ("softmax",))
    if config.flag("norm_topk_prob", False):
        raise UnsupportedError("config.json: `norm_topk_prob` is true; DeepSeek-V2 with it is not supported")
    method = _only(config, "topk_method", "greedy", ("greedy", "group_limited_greedy"))
    return _deepseek(config, "softmax", renormalised=False, grouped=method != "greedy", group_best=1)


def read_v3(config: Config) -> DecoderSpec:
    """The shape out of a DeepSeek-V3 config.json."""
    _only(config, "scoring_func", "sigmoid", ("sigmoid",))
    _only(config, "topk_method", "noaux_tc", ("noaux_tc",))
    renormalised = config.flag("norm_topk_prob", True)
    return _deepseek(config, "sigmoid", renormalised=renormalised, grouped=True, group_best=2)


def _deepseek(
    config: Config, function: Literal["softmax", "sigmoid"], *, renormalised: bool, grouped: bool, group_best: int
) -> DecoderSpec:
    for key in ("attention_bias", "mlp_bias"):
        if config.flag(key, False):
            raise UnsupportedError(f"config.json: `{key}` is true; DeepSeek with biases is not supported")
    shape = LatentShape(
        heads=config.integer("num_attention_heads"),
        latent=config.integer("kv_lora_rank"),
        rotary=config.integer("qk_rope_head_dim"),
        plain=config.integer("qk_nope_head_dim"),
        value=config.integer("v_head_dim"),
    )
    scale = shape.query**-0.5 * mscale(config) ** 2
    attention = Attention(rotary(config, shape.rotary), query_scale=scale)
    latent = Latent(shape, config.integer("q_lora_rank", 0), interleaved=config.flag("rope_interleave", True))
    spec = standard(config, attentions=alike(config, attention), dim=shape.query)
    experts = _experts(config, function, renormalised=renormalised, grouped=grouped, group_best=group_best)
    return replace(spec, num_kv_heads=1, latent=latent, experts=experts)


def _experts(
    config: Config, function: Literal["softmax", "sigmoid"], *, renormalised: bool, grouped: bool, group_best: int
) -> tuple[Experts | None, ...]:
    """Of each layer; the first ones are dense, and all where there are no experts."""
    count, dense = config.integer("num_hidden_layers"), config.integer("first_k_dense_replace", 0)
    if not config.has("n_routed_experts") or dense >= count:
        return ()
    if config.integer("moe_layer_freq", 1) != 1:
        raise UnsupportedError("config.json: `moe_layer_freq` is not 1; DeepSeek with further dense layers is unknown")
    width = config.integer("moe_intermediate_size")
    experts = Experts(
        width,
        Routing(
            count=config.integer("n_routed_experts"),
            used=config.integer("num_experts_per_tok"),
            function=function,
            renormalised=renormalised,
            scale=config.number("routed_scaling_factor", 1.0),
            groups=config.integer("n_group", 1) if grouped else 1,
            groups_used=config.integer("topk_group", 1) if grouped else 1,
            group_best=group_best,
        ),
        shared=width * config.integer("n_shared_experts", 0),
        selection_bias=function == "sigmoid",
        names=(_NAMES,),
    )
    return tuple(None if i < dense else experts for i in range(count))


def _only(config: Config, key: str, default: str, known: tuple[str, ...]) -> str:
    value = config.text(key, default)
    if value not in known:
        raise UnsupportedError(f"config.json: `{key}` is `{value}`", hint=f"supported: {', '.join(known)}")
    return value


DEEPSEEK2 = Architecture(
    name="deepseek2", model_types=("deepseek_v2",), read=read_v2, models="DeepSeek-V2 and V2.5, V2-Lite, Coder-V2"
)
DEEPSEEK3 = Architecture(
    name="deepseek3", model_types=("deepseek_v3",), read=read_v3, models="DeepSeek-V3 and R1, Moonlight"
)
