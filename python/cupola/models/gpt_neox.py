"""GPT-NeoX, Pythia, RedPajama, Dolly 2: attention and network read one stream (Black et al., 2022)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec, Norm
from cupola.models.standard import alike, function, head_dim, standard

_NAMES = Names(
    embedding="gpt_neox.embed_in",
    head="embed_out",
    norm="gpt_neox.final_layer_norm",
    layer="gpt_neox.layers.{}.",
    qkv=("attention.query_key_value",),
    qkv_by_head=True,
    output="attention.dense",
    gate_up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
)


def read(config: Config) -> DecoderSpec:
    """The shape out of a GPT-NeoX config.json."""
    bias = config.flag("attention_bias", True)
    partial, theta = config.number("rotary_pct", 0.25), config.number("rotary_emb_base", 10000.0)
    spec = standard(
        config,
        attentions=alike(config, Attention(rotary(config, head_dim(config), theta=theta, partial=partial))),
        norm=Norm(config.number("layer_norm_eps", 1e-5), centered=True, bias=True),
        biases=Biases(qkv=bias, output=bias, ffn=True),
        names=_NAMES,
        activation=function(config, "hidden_act", "gelu"),
    )
    parallel = config.flag("use_parallel_residual", True)
    return replace(spec, placement="parallel" if parallel else "before", gated=False)


GPT_NEOX = Architecture(
    name="gpt_neox", model_types=("gpt_neox",), read=read, models="GPT-NeoX, Pythia, RedPajama, Dolly 2"
)
