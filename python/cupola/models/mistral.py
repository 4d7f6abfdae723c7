"""Mistral and Ministral: Llama with sliding windows (Jiang et al., 2023)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, DecoderSpec
from cupola.models.standard import head_dim, layer_kinds, layers, standard


def read(config: Config) -> DecoderSpec:
    """The shape out of a Mistral config.json: every layer slides if there is a window, unless `layer_types` says."""
    window = config.integer("sliding_window", 0)
    full = Attention(rotary(config, head_dim(config)))
    kinds = layer_kinds(config, lambda _: window > 0)
    return standard(config, attentions=layers(kinds, full, replace(full, window=window)))


def read_ministral3(config: Config) -> DecoderSpec:
    """The shape out of a Ministral 3 config.json.

    Queries grow with the logarithm of their position from the original context on (`llama_4_scaling_beta`); such
    positions are not served.
    """
    spec = read(config)
    scaling = config.table("rope_parameters") or config.table("rope_scaling")
    if scaling is None or not scaling.number("llama_4_scaling_beta", 0.0):
        return spec
    return replace(spec, max_context=min(spec.max_context, scaling.integer("original_max_position_embeddings")))


MISTRAL = Architecture(
    name="mistral",
    model_types=("mistral", "ministral"),
    read=read,
    models="Mistral 7B, Ministral, Mistral NeMo and Small (text)",
)
MINISTRAL3 = Architecture(
    name="ministral3", model_types=("ministral3",), read=read_ministral3, models="Ministral 3 (text, original context)"
)
