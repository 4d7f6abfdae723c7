"""Mixtral: Mistral with experts in every layer (Jiang et al., 2024)."""

from __future__ import annotations

from dataclasses import replace

from cupola.kernels.operations import Routing
from cupola.models.config import Config
from cupola.models.experts import ExpertNames, Experts
from cupola.models.mistral import read as read_mistral
from cupola.models.spec import Architecture, DecoderSpec

_BLOCK = "block_sparse_moe"
OLD_NAMES = ExpertNames(
    router=f"{_BLOCK}.gate",
    each=(f"{_BLOCK}.experts.{{}}.w1", f"{_BLOCK}.experts.{{}}.w3", f"{_BLOCK}.experts.{{}}.w2"),
)


def read(config: Config) -> DecoderSpec:
    """The shape out of a Mixtral config.json."""
    routing = Routing(config.integer("num_local_experts"), config.integer("num_experts_per_tok", 2))
    experts = Experts(config.integer("intermediate_size"), routing, names=(OLD_NAMES, ExpertNames()))
    spec = read_mistral(config)
    return replace(spec, experts=(experts,) * spec.num_layers)


MIXTRAL = Architecture(name="mixtral", model_types=("mixtral",), read=read, models="Mixtral 8x7B and 8x22B")
