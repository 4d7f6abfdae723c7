"""SmolLM2 as a transformers model, built from the GGUF file by hand: the reference that Cupola is compared with.

Only the `gguf` library's dequantization is used. transformers could load the file itself, but the tokenizer that it
derives splits digits wrongly, and one more independent reading of the file is worth having.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_smollm2(path: Path) -> LlamaForCausalLM:
    """Builds the model in float32 with tied embeddings."""
    reader = GGUFReader(str(path))
    config = _config(reader)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    state = {
        _name(t.name): torch.from_numpy(_tensor(t.name, dequantize(t.data, t.tensor_type), config))
        for t in reader.tensors
    }
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = model.to_empty(device="cpu")
    model.load_state_dict(state, strict=True)
    # `to_empty` leaves the frequencies, which are no parameters, undefined.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.float().eval()


def _config(reader: GGUFReader) -> LlamaConfig:
    def value(key: str) -> float:
        return reader.fields[f"llama.{key}"].contents()

    return LlamaConfig(
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        vocab_size=value("vocab_size"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )


def _name(gguf: str) -> str:
    """The Hugging Face name of a GGUF tensor."""
    if gguf == "token_embd.weight":
        return "model.embed_tokens.weight"
    if gguf == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = gguf.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.weight"


def _tensor(name: str, values: np.ndarray, config: LlamaConfig) -> np.ndarray:
    """Undoes GGUF's order of the rotary halves (pairs side by side) in the rows of q and k."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    part = name.split(".")[2] if name.startswith("blk.") else ""
    if part not in heads:
        return np.array(values)
    rows, columns = values.shape
    pairs = values.reshape(heads[part], rows // heads[part] // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))
