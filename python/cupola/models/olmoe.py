"""OLMoE: norms over all heads of q and k at once, experts in every layer (Muennighoff et al., 2024)."""

from __future__ import annotations

from dataclasses import replace

from cupola.errors import UnsupportedError
from cupola.kernels.routing import Routing
from cupola.models.config import Config
from cupola.models.experts import Experts
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import alike, head_dim, rms_norm, standard


def read(config: Config) -> DecoderSpec:
    """The shape out of an OLMoE config.json."""
    if config.has("clip_qkv"):
        raise UnsupportedError("config.json: `clip_qkv` is set, which Cupola does not compute")
    attention, bias = Attention(rotary(config, head_dim(config)), qk_norm="row"), config.flag("attention_bias", False)
    routing = Routing(
        config.integer("num_experts"),
        config.integer("num_experts_per_tok"),
        renormalised=config.flag("norm_topk_prob", False),
    )
    spec = standard(
        config,
        attentions=alike(config, attention),
        norm=rms_norm(config, eps=1e-5),
        biases=Biases(qkv=bias, output=bias),
    )
    return replace(spec, experts=(Experts(config.integer("intermediate_size"), routing),) * spec.num_layers)


OLMOE = Architecture(name="olmoe", model_types=("olmoe",), read=read, models="OLMoE 1B-7B")
