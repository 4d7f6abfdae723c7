"""MPNet: BERT whose scores also know how far apart two tokens are (Song et al., 2020)."""

from __future__ import annotations

from dataclasses import replace

from cupola.models.bert import read_bert, roberta_head
from cupola.models.config import Config
from cupola.models.encoder_spec import EncoderNames, EncoderSpec
from cupola.models.spec import Architecture

_NAMES = EncoderNames(
    prefixes=("", "mpnet."),
    types="",
    relative="encoder.relative_attention_bias",
    qkv=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    output="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
_FIRST_POSITION = 2  # behind those of padding


def read(config: Config) -> EncoderSpec:
    """The sizes out of an MPNet config.json."""
    spec = read_bert(config, _NAMES, first_position=_FIRST_POSITION, head=roberta_head(config))
    return replace(spec, relative_buckets=config.integer("relative_attention_num_buckets", 32))


MPNET = Architecture(name="mpnet", model_types=("mpnet",), read=read, task="embed", models="MPNet, all-mpnet-base-v2")
