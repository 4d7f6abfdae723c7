"""BERT, RoBERTa and what shares their shape: XLM-RoBERTa, MiniLM, BGE, E5 (Devlin et al., 2018; Liu et al., 2019)."""

from __future__ import annotations

from cupola.errors import UnsupportedError
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderSpec
from cupola.models.spec import Architecture
from cupola.models.standard import function


def read(config: Config) -> EncoderSpec:
    """The sizes out of a BERT config.json."""
    return _read(config, first_position=0, prefixes=("", "bert."))


def read_roberta(config: Config) -> EncoderSpec:
    """The sizes out of a RoBERTa config.json: its positions begin behind that of padding."""
    return _read(config, first_position=config.integer("pad_token_id", 1) + 1, prefixes=("", "roberta."))


def _read(config: Config, first_position: int, prefixes: tuple[str, ...]) -> EncoderSpec:
    positions = config.text("position_embedding_type", "absolute")
    if positions != "absolute":
        raise UnsupportedError(f"config.json: `position_embedding_type` is `{positions}`", hint="supported: absolute")
    for key in ("is_decoder", "add_cross_attention"):
        if config.flag(key, False):
            raise UnsupportedError(f"config.json: `{key}` is true; only encoders of this architecture are supported")
    return EncoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        num_layers=config.integer("num_hidden_layers"),
        num_heads=config.integer("num_attention_heads"),
        norm_eps=config.number("layer_norm_eps", 1e-12),
        activation=function(config, "hidden_act", "gelu"),
        max_positions=config.integer("max_position_embeddings", 512),
        first_position=first_position,
        type_vocab_size=config.integer("type_vocab_size", 2),
        prefixes=prefixes,
    )


BERT = Architecture(name="bert", model_types=("bert",), read=read, task="embed", models="BERT, MiniLM, BGE, E5, GTE")
ROBERTA = Architecture(
    name="roberta",
    model_types=("roberta", "xlm-roberta"),
    read=read_roberta,
    task="embed",
    models="RoBERTa, XLM-RoBERTa, multilingual E5, BGE-M3",
)
