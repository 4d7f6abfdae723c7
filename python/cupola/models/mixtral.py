"""Mixtral: Mistral with experts in every layer (Jiang et al., 2024)."""

from __future__ import annotations

from dataclasses import replace

from cupola.kernels.routing import Routing
from cupola.models.config import Config
from cupola.models.experts import ExpertNames, Experts
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, DecoderSpec
from cupola.models.standard import alike, head_dim, rms_norm, standard

_BLOCK = "block_sparse_moe"
OLD_NAMES = ExpertNames(
    router=f"{_BLOCK}.gate",
    each=(f"{_BLOCK}.experts.{{}}.w1", f"{_BLOCK}.experts.{{}}.w3", f"{_BLOCK}.experts.{{}}.w2"),
)


def read(config: Config) -> DecoderSpec:
    """The shape out of a Mixtral config.json."""
    routing = Routing(config.integer("num_local_experts"), config.integer("num_experts_per_tok", 2))
    experts = Experts(config.integer("intermediate_size"), routing, names=(OLD_NAMES, ExpertNames()))
    positions = rotary(config, head_dim(config), theta=1000000.0)
    attention = Attention(positions, window=config.integer("sliding_window", 0))
    spec = standard(config, attentions=alike(config, attention), norm=rms_norm(config, eps=1e-5))
    return replace(spec, experts=(experts,) * spec.num_layers)


MIXTRAL = Architecture(name="mixtral", model_types=("mixtral",), read=read, models="Mixtral 8x7B and 8x22B")
