"""DistilBERT: half of BERT's layers, without token types (Sanh et al., 2019)."""

from __future__ import annotations

from cupola.models.classifier import labels, scores
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderAttention, EncoderNames, EncoderSpec, Head
from cupola.models.spec import Architecture
from cupola.models.standard import function

_NAMES = EncoderNames(
    prefixes=("", "distilbert."),
    types="",
    layer="transformer.layer.{}.",
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up=("ffn.lin1",),
    down="ffn.lin2",
    ffn_norm="output_layer_norm",
)


def read(config: Config) -> EncoderSpec:
    """The sizes out of a DistilBERT config.json, which has keys of its own for all of them."""
    rows, names = config.integer("max_position_embeddings", 512), labels(config)
    head = Head(names, scores(config, len(names)), "classifier", dense="pre_classifier", function="relu")
    return EncoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("dim"),
        intermediate_size=config.integer("hidden_dim"),
        num_heads=config.integer("n_heads"),
        layers=(EncoderAttention(),) * config.integer("n_layers"),
        norm_eps=1e-12,
        activation=function(config, "activation", "gelu"),
        max_context=rows,
        names=_NAMES,
        positions=rows,
        head=head if names else None,
    )


DISTILBERT = Architecture(
    name="distilbert", model_types=("distilbert",), read=read, task="embed", models="DistilBERT, msmarco-distilbert"
)
