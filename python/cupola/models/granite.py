"""Granite 3 and 4, dense: Llama with factors on embeddings, scores, residuals and logits (Granite Team, 2024 and 2025).

Granite 4 is a family of hybrids, of which the dense models have attention alone; its positions may be left out.
"""

from __future__ import annotations

from dataclasses import replace

from cupola.errors import UnsupportedError
from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import Rotary, rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import alike, head_dim, standard

_HYBRID_NAMES = Names(gate_up=("shared_mlp.input_linear",), down="shared_mlp.output_linear")


def read(config: Config) -> DecoderSpec:
    """The shape out of a Granite 3 config.json."""
    return _granite(config, _positions(config, "rope"))


def read_hybrid(config: Config) -> DecoderSpec:
    """The shape out of the config.json of a Granite 4 without state-space layers and experts."""
    known = ("attention", "full_attention")
    layers = config.texts("layer_types") or config.texts("layers_block_type") or ("mamba",)
    unknown = next((kind for kind in layers if kind not in known), None)
    if unknown is not None:
        raise UnsupportedError(
            f"config.json: `layer_types` has `{unknown}`", hint="supported are the dense models of Granite 4"
        )
    if config.integer("num_local_experts", 8):
        raise UnsupportedError("config.json: `num_local_experts` is not 0; Granite 4 with experts is not supported")
    spec = _granite(config, _positions(config, "nope"))
    return replace(spec, intermediate_size=config.integer("shared_intermediate_size", 1024), names=_HYBRID_NAMES)


def _positions(config: Config, default: str) -> Rotary | None:
    kind = config.text("position_embedding_type", default)
    if kind not in ("rope", "nope"):
        raise UnsupportedError(f"config.json: `position_embedding_type` is `{kind}`", hint="supported: rope, nope")
    return rotary(config, head_dim(config)) if kind == "rope" else None


def _granite(config: Config, positions: Rotary | None) -> DecoderSpec:
    scale = config.number("attention_multiplier", 1.0)
    attention = Attention(positions, query_scale=scale)
    bias = config.flag("attention_bias", False)
    biases = Biases(qkv=bias, output=bias, ffn=config.flag("mlp_bias", False))
    return replace(
        standard(config, attentions=alike(config, attention), biases=biases),
        embedding_scale=config.number("embedding_multiplier", 1.0),
        residual_scale=config.number("residual_multiplier", 1.0),
        logit_scale=1 / config.number("logits_scaling", 1.0),
    )


GRANITE = Architecture(name="granite", model_types=("granite",), read=read, models="Granite 3, dense")
GRANITE_HYBRID = Architecture(
    name="granite4", model_types=("granitemoehybrid",), read=read_hybrid, models="Granite 4, dense"
)
