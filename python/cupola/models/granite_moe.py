"""Granite 3 with experts: Granite's factors on embeddings, scores, residuals and logits around them."""

from __future__ import annotations

from dataclasses import replace

from cupola.kernels.routing import Routing
from cupola.models.config import Config
from cupola.models.experts import ExpertNames, Experts
from cupola.models.granite import read as read_granite
from cupola.models.spec import Architecture, DecoderSpec

_BLOCK = "block_sparse_moe"
NAMES = (
    ExpertNames(
        router=f"{_BLOCK}.router.layer",
        stacked=(f"{_BLOCK}.input_linear", f"{_BLOCK}.output_linear"),
        shared=("shared_mlp.input_linear",),
        shared_down="shared_mlp.output_linear",
    ),
    ExpertNames(
        router=f"{_BLOCK}.router",
        stacked=(f"{_BLOCK}.experts.gate_up_proj", f"{_BLOCK}.experts.down_proj"),
        shared=("shared_mlp.input_linear",),
        shared_down="shared_mlp.output_linear",
    ),
    ExpertNames(),
)


def read(config: Config) -> DecoderSpec:
    """The shape out of a GraniteMoe config.json, with or without a network that every row uses."""
    routing = Routing(config.integer("num_local_experts"), config.integer("num_experts_per_tok"))
    shared = config.integer("shared_intermediate_size", 0)
    experts = Experts(config.integer("intermediate_size"), routing, shared, names=NAMES)
    spec = read_granite(config)
    return replace(spec, experts=(experts,) * spec.num_layers)


GRANITE_MOE = Architecture(
    name="granitemoe",
    model_types=("granitemoe", "granitemoeshared"),
    read=read,
    models="Granite 3 1B A400M and 3B A800M",
)
