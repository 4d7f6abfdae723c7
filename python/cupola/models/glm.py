"""GLM 4: half of each head rotates, in pairs of neighbours; GLM-4-0414 has norms around (GLM Team, 2024 and 2025)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import alike, head_dim, standard

_GLM_NAMES = Names(interleaved=True, gate_up=("mlp.gate_up_proj",))
_GLM4_NAMES = replace(_GLM_NAMES, attention_post_norm="post_self_attn_layernorm", ffn_post_norm="post_mlp_layernorm")


def read_glm(config: Config) -> DecoderSpec:
    """The shape out of a GLM config.json."""
    dim = head_dim(config, 128)
    attention = Attention(rotary(config, dim, partial=0.5))
    biases = Biases(qkv=config.flag("attention_bias", True))
    return standard(config, attentions=alike(config, attention), dim=dim, biases=biases, names=_GLM_NAMES)


def read_glm4(config: Config) -> DecoderSpec:
    """The shape out of a GLM-4-0414 config.json."""
    return replace(read_glm(config), placement="around", names=_GLM4_NAMES)


GLM = Architecture(name="glm", model_types=("glm",), read=read_glm, models="GLM-4-9B in its Hugging Face form")
GLM4 = Architecture(name="glm4", model_types=("glm4",), read=read_glm4, models="GLM-4-0414")
