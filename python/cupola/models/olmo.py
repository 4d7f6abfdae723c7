"""OLMo 2 and 3: norms behind attention and network, and of q and k over all heads (OLMo Team, 2025).

OLMo 3 lets three layers of four slide; only the others stretch their positions.
"""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.rotary import local_rotary, rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec
from cupola.models.standard import alike, head_dim, layer_kinds, layers, rms_norm, standard

_OLMO3_THETA = 5e5


def read_olmo2(config: Config) -> DecoderSpec:
    """The shape out of an OLMo 2 config.json."""
    return _olmo(config, alike(config, Attention(rotary(config, head_dim(config)), qk_norm="row")))


def read_olmo3(config: Config) -> DecoderSpec:
    """The shape out of an OLMo 3 config.json."""
    dim = head_dim(config)
    full = Attention(rotary(config, dim, kind="full_attention", theta=_OLMO3_THETA), qk_norm="row")
    local = local_rotary(config, dim, config.number("rope_theta", _OLMO3_THETA))
    sliding = replace(full, rotary=local, window=config.integer("sliding_window", 4096))
    return _olmo(config, layers(layer_kinds(config, lambda i: (i + 1) % 4 != 0), full, sliding))


def _olmo(config: Config, attentions: tuple[Attention, ...]) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    return replace(
        standard(config, attentions=attentions, norm=rms_norm(config, 1e-5), biases=Biases(qkv=bias, output=bias)),
        placement="after",
    )


OLMO2 = Architecture(name="olmo2", model_types=("olmo2",), read=read_olmo2, models="OLMo 2")
OLMO3 = Architecture(name="olmo3", model_types=("olmo3",), read=read_olmo3, models="OLMo 3")
