"""InternLM 2 (Llama with a projection that is fused head by head) and 3 (Llama with biases) (Cai et al., 2024)."""

from __future__ import annotations

from cupola.models.config import Config
from cupola.models.names import Names
from cupola.models.spec import Architecture, Biases, DecoderSpec
from cupola.models.standard import rms_norm, standard

_NAMES = Names(
    embedding="model.tok_embeddings",
    head="output",
    qkv=("attention.wqkv",),
    qkv_by_head=True,
    output="attention.wo",
    gate_up=("feed_forward.w1", "feed_forward.w3"),
    down="feed_forward.w2",
    attention_norm="attention_norm",
    ffn_norm="ffn_norm",
)


def read_internlm2(config: Config) -> DecoderSpec:
    """The shape out of an InternLM 2 config.json."""
    bias = config.flag("bias", False)
    return standard(config, biases=Biases(qkv=bias, output=bias), names=_NAMES)


def read_internlm3(config: Config) -> DecoderSpec:
    """The shape out of an InternLM 3 config.json."""
    bias = config.flag("bias", False)
    biases = Biases(qkv=config.flag("qkv_bias", False), output=bias, ffn=bias)
    return standard(config, norm=rms_norm(config, 1e-5), biases=biases)


INTERNLM2 = Architecture(name="internlm2", model_types=("internlm2",), read=read_internlm2, models="InternLM 2 and 2.5")
INTERNLM3 = Architecture(name="internlm3", model_types=("internlm3",), read=read_internlm3, models="InternLM 3")
