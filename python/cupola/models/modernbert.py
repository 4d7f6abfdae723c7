"""ModernBERT: rotary positions, layers that see a window by turns, gated networks (Warner et al., 2024)."""

from __future__ import annotations

from cupola.errors import UnsupportedError
from cupola.models.classifier import labels, scores
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderAttention, EncoderBiases, EncoderNames, EncoderSpec, Head
from cupola.models.rotary import Rotary, rotary
from cupola.models.spec import Architecture
from cupola.models.standard import LayerKind, function, layer_kinds

_NAMES = EncoderNames(
    prefixes=("", "model."),
    words="embeddings.tok_embeddings",
    norm="embeddings.norm",
    layer="layers.{}.",
    qkv=("attn.Wqkv",),
    output="attn.Wo",
    attention_norm="attn_norm",
    up=("mlp.Wi",),
    down="mlp.Wo",
    ffn_norm="mlp_norm",
    final_norm="final_norm",
)
# The base of each kind of layer: its key in older files, and what it is where nobody says.
_BASES: dict[LayerKind, tuple[str, float]] = {
    "full_attention": ("global_rope_theta", 160000.0),
    "sliding_attention": ("local_rope_theta", 10000.0),
}


def read(config: Config) -> EncoderSpec:
    """The sizes out of a ModernBERT config.json."""
    heads = max(config.integer("num_attention_heads"), 1)
    every, window = config.integer("global_attn_every_n_layers", 3), config.integer("local_attention", 128) // 2
    kinds = layer_kinds(config, lambda i: i % max(every, 1) != 0)
    turns = {kind: _rotary(config, kind, config.integer("hidden_size") // heads) for kind in _BASES}
    attention_bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    return EncoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        num_heads=heads,
        layers=tuple(EncoderAttention(turns[kind], window if kind == "sliding_attention" else 0) for kind in kinds),
        norm_eps=config.number("norm_eps", 1e-5),
        activation=function(config, "hidden_activation", "gelu"),
        max_context=config.integer("max_position_embeddings", 8192),
        names=_NAMES,
        pre_norm=True,
        gated=True,
        biases=EncoderBiases(attention_bias, attention_bias, mlp_bias, mlp_bias, config.flag("norm_bias", False)),
        head=_head(config),
    )


def _rotary(config: Config, kind: LayerKind, dim: int) -> Rotary:
    key, default = _BASES[kind]
    return rotary(config, dim, kind=kind, theta=config.number(key, default))


def _head(config: Config) -> Head | None:
    names, pooling = labels(config), config.text("classifier_pooling", "cls")
    if not names:
        return None
    if pooling not in ("cls", "mean"):
        raise UnsupportedError(f"config.json: `classifier_pooling` is `{pooling}`", hint="supported: cls, mean")
    return Head(
        names,
        scores(config, len(names)),
        "classifier",
        dense="head.dense",
        norm="head.norm",
        function=function(config, "classifier_activation", "gelu"),
        dense_bias=config.flag("classifier_bias", False),
        pooling="mean" if pooling == "mean" else "cls",
    )


MODERNBERT = Architecture(
    name="modernbert",
    model_types=("modernbert",),
    read=read,
    task="embed",
    models="ModernBERT, GTE-ModernBERT and its reranker, Granite Embedding R2",
)
