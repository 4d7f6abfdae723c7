"""StarCoder 2: layer norms and biases everywhere, an ungated network (Lozhkov et al., 2024)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec, Norm
from cupola.models.standard import alike, function, head_dim, standard

_NAMES = Names(gate_up=("mlp.c_fc",), down="mlp.c_proj")


def read(config: Config) -> DecoderSpec:
    """The shape out of a StarCoder 2 config.json."""
    bias = config.flag("use_bias", True)
    attention = Attention(rotary(config, head_dim(config)), window=config.integer("sliding_window", 0))
    spec = standard(
        config,
        attentions=alike(config, attention),
        norm=Norm(config.number("norm_epsilon", 1e-5), centered=True, bias=True),
        tied=True,
        biases=Biases(qkv=bias, output=bias, ffn=bias),
        names=_NAMES,
        activation=function(config, "hidden_act", "gelu_pytorch_tanh"),
    )
    return replace(spec, gated=False)


STARCODER2 = Architecture(name="starcoder2", model_types=("starcoder2",), read=read, models="StarCoder 2")
