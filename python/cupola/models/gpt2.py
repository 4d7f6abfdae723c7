"""GPT-2: learned positions, matrices that lie as [inputs, outputs] (Radford et al., 2019)."""

from __future__ import annotations

from dataclasses import replace

from cupola.errors import UnsupportedError
from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.spec import Architecture, Attention, Biases, DecoderSpec, Norm
from cupola.models.standard import function

_NAMES = Names(
    embedding="transformer.wte",
    positions="transformer.wpe",
    norm="transformer.ln_f",
    layer="transformer.h.{}.",
    qkv=("attn.c_attn",),
    transposed=True,
    output="attn.c_proj",
    gate_up=("mlp.c_fc",),
    down="mlp.c_proj",
    attention_norm="ln_1",
    ffn_norm="ln_2",
)


def read(config: Config) -> DecoderSpec:
    """The shape out of a GPT-2 config.json, whose keys are its own."""
    for key, usual in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if config.flag(key, usual) is not usual:
            raise UnsupportedError(f"config.json: `{key}` is {str(not usual).lower()}; GPT-2 is not supported so")
    hidden, heads = config.integer("n_embd"), config.integer("n_head")
    positions = config.integer("n_positions", config.integer("n_ctx", 1024))
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=config.integer("n_inner", 4 * hidden),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // max(heads, 1),
        layers=(Attention(rotary=None),) * config.integer("n_layer"),
        norm=Norm(config.number("layer_norm_epsilon", 1e-5), centered=True, bias=True),
        max_context=positions,
        tied=config.flag("tie_word_embeddings", True),
        activation=function(config, "activation_function", "gelu_new"),
        gated=False,
        biases=Biases(qkv=True, output=True, ffn=True),
        positions=positions,
        names=replace(_NAMES, transposed=config.flag("transposed_matrices", True)),  # a GGUF file's are not
    )


GPT2 = Architecture(name="gpt2", model_types=("gpt2",), read=read, models="GPT-2 and DistilGPT-2")
