"""Phi 1, 1.5 and 2 (parallel layers, layer norms), Phi 3 and 4 (Llama with fused projections) (Abdin et al., 2024)."""

from __future__ import annotations

from dataclasses import replace

from cupola.errors import UnsupportedError
from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec, Norm
from cupola.models.standard import alike, function, head_dim, rms_norm, standard

_PHI_NAMES = Names(norm="model.final_layernorm", output="self_attn.dense", gate_up=("mlp.fc1",), down="mlp.fc2")
_PHI3_NAMES = Names(qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))


def read_phi(config: Config) -> DecoderSpec:
    """The shape out of a Phi config.json."""
    if config.flag("qk_layernorm", False):
        raise UnsupportedError("config.json: `qk_layernorm` is true; Phi with norms of q and k is not supported")
    attention = Attention(rotary(config, head_dim(config), partial=0.5))
    spec = standard(
        config,
        attentions=alike(config, attention),
        norm=Norm(config.number("layer_norm_eps", 1e-5), centered=True, bias=True),
        biases=Biases(qkv=True, output=True, ffn=True, head=True),
        names=_PHI_NAMES,
        activation=function(config, "hidden_act", "gelu_new"),
    )
    return replace(spec, placement="parallel_shared", gated=False)


def read_phi3(config: Config) -> DecoderSpec:
    """The shape out of a Phi 3 or Phi 4 config.json."""
    window = config.integer("sliding_window", 0)
    attention = Attention(rotary(config, head_dim(config)), window=window)
    return standard(config, attentions=alike(config, attention), norm=rms_norm(config, 1e-5), names=_PHI3_NAMES)


PHI = Architecture(name="phi", model_types=("phi",), read=read_phi, models="Phi 1, 1.5 and 2")
PHI3 = Architecture(name="phi3", model_types=("phi3",), read=read_phi3, models="Phi 3, 3.5 and 4, dense")
