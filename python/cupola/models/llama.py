"""Llama 2, 3 and what shares its shape: SmolLM, SmolLM2, TinyLlama, Yi, Falcon 3, and others (Touvron et al., 2023)."""

from __future__ import annotations

from cupola.models.config import Config
from cupola.models.spec import Architecture, Biases, DecoderSpec
from cupola.models.standard import standard


def read(config: Config) -> DecoderSpec:
    """The shape out of a Llama config.json."""
    attention, mlp = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    return standard(config, biases=Biases(qkv=attention, output=attention, ffn=mlp))


LLAMA = Architecture(
    name="llama",
    model_types=("llama",),
    read=read,
    models="Llama 2, 3 and 3.x, SmolLM, SmolLM2, TinyLlama, Yi, Falcon 3, and what else shares the shape",
)
