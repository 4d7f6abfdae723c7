"""Nomic Embed and GTE: BERT with rotary positions and gated networks (Nussbaum et al., 2024; Zhang et al., 2024)."""

from __future__ import annotations

from cupola.errors import UnsupportedError
from cupola.models.bert import bert_head
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderAttention, EncoderBiases, EncoderNames, EncoderSpec
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture
from cupola.models.standard import FUNCTIONS, function

_NOMIC = EncoderNames(
    prefixes=("", "bert.", "nomic_bert."),
    norm="emb_ln",
    layer="encoder.layers.{}.",
    qkv=("attn.Wqkv",),
    output="attn.out_proj",
    attention_norm="norm1",
    up=("mlp.fc12", "mlp.fc11"),
    down="mlp.fc2",
    ffn_norm="norm2",
)
_GTE = EncoderNames(
    prefixes=("", "new.", "gte."),
    qkv=("attention.qkv_proj",),
    output="attention.o_proj",
    attention_norm="attn_ln",
    up=("mlp.up_gate_proj",),
    up_before_gate=True,
    down="mlp.down_proj",
    ffn_norm="mlp_ln",
)
_GATED = {"swiglu": "silu", "geglu": "gelu"}


def read_nomic(config: Config) -> EncoderSpec:
    """The sizes out of Nomic Embed's config.json, whose keys are GPT-2's, or transformers' own.

    Raises:
        UnsupportedError: one of the features that GPT-2's keys can ask for, and published models do not have.
    """
    for key, only in (("prenorm", False), ("rotary_emb_interleaved", False), ("moe_every_n_layers", 0)):
        if config.has(key) and (config.flag(key, False) if only is False else config.integer(key, 0)) != only:
            raise UnsupportedError(f"config.json: `{key}` is set; Cupola's nomic_bert is without it")
    if config.number("rotary_emb_fraction", 1.0) != 1.0:
        raise UnsupportedError("config.json: `rotary_emb_fraction` is not 1; heads have to rotate as a whole")
    named = config.text("activation_function", "swiglu")
    if named not in _GATED:
        raise UnsupportedError(f"config.json: `activation_function` is `{named}`", hint="supported: swiglu, geglu")
    hidden = config.integer("n_embd", config.integer("hidden_size", 0))
    heads = config.integer("n_head", config.integer("num_attention_heads", 0))
    theta = config.number("rotary_emb_base", 1000.0)
    up, down = config.flag("mlp_fc1_bias", False), config.flag("mlp_fc2_bias", False)
    qkv = config.flag("qkv_proj_bias", False)
    return EncoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=config.integer("n_inner", config.integer("intermediate_size", 0)),
        num_heads=heads,
        layers=(EncoderAttention(rotary(config, hidden // max(heads, 1), theta=theta)),)
        * config.integer("n_layer", config.integer("num_hidden_layers", 0)),
        norm_eps=config.number("layer_norm_epsilon", config.number("layer_norm_eps", 1e-12)),
        activation=FUNCTIONS[config.text("hidden_act", _GATED[named])],
        # Past what it was trained for, Nomic's own code scales its frequencies by the length of each text.
        max_context=config.integer("max_trained_positions", config.integer("max_position_embeddings", 2048)),
        names=_NOMIC,
        type_vocab_size=config.integer("type_vocab_size", 2),
        gated=True,
        biases=EncoderBiases(qkv, qkv, up, down),
        head=bert_head(config),
    )


def read_gte(config: Config) -> EncoderSpec:
    """The sizes out of a GTE config.json."""
    heads = max(config.integer("num_attention_heads"), 1)
    attention = EncoderAttention(rotary(config, config.integer("hidden_size") // heads, theta=160000.0))
    return EncoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        num_heads=heads,
        layers=(attention,) * config.integer("num_hidden_layers"),
        norm_eps=config.number("layer_norm_eps", 1e-12),
        activation=function(config, "hidden_act", "gelu"),
        max_context=config.integer("max_position_embeddings", 8192),
        names=_GTE,
        type_vocab_size=config.integer("type_vocab_size", 1),
        gated=True,
        biases=EncoderBiases(up=False),
        head=bert_head(config),
    )


NOMIC_BERT = Architecture(
    name="nomic_bert", model_types=("nomic_bert",), read=read_nomic, task="embed", models="Nomic Embed v1, v1.5"
)
GTE = Architecture(
    name="gte", model_types=("gte", "new"), read=read_gte, task="embed", models="GTE multilingual, GTE v1.5"
)
