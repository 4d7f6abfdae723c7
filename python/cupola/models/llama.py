"""Llama 2, 3 and what shares its shape: SmolLM, SmolLM2, TinyLlama, Yi, and others (Touvron et al., 2023)."""

from __future__ import annotations

from cupola.errors import UnsupportedError
from cupola.models.config import Config
from cupola.models.rotary import rotary
from cupola.models.spec import Architecture, DecoderSpec


def read(config: Config) -> DecoderSpec:
    """The sizes out of a Llama config.json."""
    for key in ("attention_bias", "mlp_bias"):
        if config.flag(key, False):
            raise UnsupportedError(f"config.json: `{key}` is true; Llama with biases is not supported")
    activation = config.text("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedError(f"config.json: `hidden_act` is `{activation}`; Llama models use `silu`")
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.integer("head_dim", hidden // max(heads, 1))
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=config.integer("intermediate_size"),
        num_layers=config.integer("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=config.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=rotary(config, head_dim),
        max_context=config.integer("max_position_embeddings", 2048),
        tied=config.flag("tie_word_embeddings", False),
    )


LLAMA = Architecture(name="llama", model_types=("llama",), read=read)
