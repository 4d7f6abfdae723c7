"""BERT, RoBERTa and what shares their shape: XLM-RoBERTa, MiniLM, BGE, E5 (Devlin et al., 2018; Liu et al., 2019)."""

from __future__ import annotations

from cupola.errors import UnsupportedError
from cupola.models.classifier import labels, scores
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderAttention, EncoderNames, EncoderSpec, Head
from cupola.models.spec import Architecture
from cupola.models.standard import function


def read(config: Config) -> EncoderSpec:
    """The sizes out of a BERT config.json."""
    return read_bert(config, EncoderNames(("", "bert.")), head=bert_head(config))


def read_roberta(config: Config) -> EncoderSpec:
    """The sizes out of a RoBERTa config.json: its positions begin behind that of padding."""
    first = config.integer("first_position", config.integer("pad_token_id", 1) + 1)
    return read_bert(config, EncoderNames(("", "roberta.")), first_position=first, head=roberta_head(config))


def read_bert(config: Config, names: EncoderNames, *, first_position: int = 0, head: Head | None) -> EncoderSpec:
    """What BERT's descendants have in common.

    Raises:
        UnsupportedError: positions of another kind, or a decoder.
    """
    positions = config.text("position_embedding_type", "absolute")
    if positions != "absolute":
        raise UnsupportedError(f"config.json: `position_embedding_type` is `{positions}`", hint="supported: absolute")
    for key in ("is_decoder", "add_cross_attention"):
        if config.flag(key, False):
            raise UnsupportedError(f"config.json: `{key}` is true; only encoders of this architecture are supported")
    rows = config.integer("max_position_embeddings", 512)
    return EncoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        num_heads=config.integer("num_attention_heads"),
        layers=(EncoderAttention(),) * config.integer("num_hidden_layers"),
        norm_eps=config.number("layer_norm_eps", 1e-12),
        activation=function(config, "hidden_act", "gelu"),
        max_context=rows - first_position,
        names=names,
        positions=rows,
        first_position=first_position,
        type_vocab_size=config.integer("type_vocab_size", 2) if names.types else 0,
        head=head,
    )


def bert_head(config: Config) -> Head | None:
    """The pooler, which every classifier of BERT's kind has, and a matrix."""
    names = labels(config)
    return Head(names, scores(config, len(names)), "classifier", dense="{}pooler.dense") if names else None


def roberta_head(config: Config) -> Head | None:
    """RoBERTa's head, a network of two matrices."""
    names = labels(config)
    return Head(names, scores(config, len(names)), "classifier.out_proj", dense="classifier.dense") if names else None


BERT = Architecture(name="bert", model_types=("bert",), read=read, task="embed", models="BERT, MiniLM, BGE, E5, GTE")
ROBERTA = Architecture(
    name="roberta",
    model_types=("roberta", "xlm-roberta"),
    read=read_roberta,
    task="embed",
    models="RoBERTa, XLM-RoBERTa, multilingual E5, BGE-M3, BGE rerankers",
)
