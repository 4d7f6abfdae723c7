"""Granite 3: Llama with factors on embeddings, scores, residuals and logits (Granite Team, 2024)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import alike, head_dim, standard


def read(config: Config) -> DecoderSpec:
    """The shape out of a Granite config.json."""
    scale = config.number("attention_multiplier", 1.0)
    attention = Attention(rotary(config, head_dim(config)), query_scale=scale)
    bias = config.flag("attention_bias", False)
    biases = Biases(qkv=bias, output=bias, ffn=config.flag("mlp_bias", False))
    return replace(
        standard(config, attentions=alike(config, attention), biases=biases),
        embedding_scale=config.number("embedding_multiplier", 1.0),
        residual_scale=config.number("residual_multiplier", 1.0),
        logit_scale=1 / config.number("logits_scaling", 1.0),
    )


GRANITE = Architecture(name="granite", model_types=("granite",), read=read, models="Granite 3, dense")
