"""How the files of one of llama.cpp's architectures are read: plain values that say what its converter writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Values = Mapping[str, object]  # of a config.json

# Names of most decoders.
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
RMS_EPS = {"rms_norm_eps": "attention.layer_norm_rms_epsilon"}


@dataclass(frozen=True)
class Family:
    """How the files of one architecture are read.

    Args:
        model_type: that of the config.json.
        epsilon: config key -> metadata key (behind the architecture's name) of the number that norms add; required.
        keys: config key -> metadata key of what only this family has.
        flags: config key -> a tensor of the first layer; the value is whether the file has it.
        fixed: config values that the architecture's name implies.
        derived: more of the configuration, out of what is read so far.
        top: tensors outside layers, without `.weight` and `.bias`: GGUF name -> Hugging Face name.
        layer: the prefix of Hugging Face's names in a layer; {} is its number.
        parts: tensors in a layer, likewise.
        interleaved: rows of q and k lie with the two rotary halves of a head in turn (0, h, 1, h + 1, ...), and are put
            back in order; else they lie as in Hugging Face's folder, whatever order that is.
        split_by_head: the tensor of q, k and v holds all queries, all keys, all values, where Hugging Face's has the
            three of one head after those of another.
        norm_offset: what the converter added to the weights of norms.
        own_head_sizes: the keys of heads' sizes mean something else; `keys` and `derived` read them.
        whole: tensors in a layer whose Hugging Face names end in neither `.weight` nor `.bias`: whole names, likewise.
    """

    model_type: str
    epsilon: Mapping[str, str] = field(default_factory=lambda: RMS_EPS)
    keys: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    fixed: Values = field(default_factory=dict)
    derived: Callable[[Values], Values] = lambda _: {}
    top: Mapping[str, str] = field(default_factory=lambda: TOP)
    layer: str = "model.layers.{}."
    parts: Mapping[str, str] = field(default_factory=lambda: PARTS)
    interleaved: bool = False
    split_by_head: bool = False
    norm_offset: float = 0.0
    own_head_sizes: bool = False
    whole: Mapping[str, str] = field(default_factory=dict)
