"""Tiny GGUF files, made on the fly from the tiny models, the way llama.cpp's converter lays a Llama model out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Role, Source
from cupola.quantize.schemes import SCHEMES, choose_format
from cupola.weights.checkpoint import Checkpoint
from tiny_models import TinyModel

MODEL = TinyModel("tiny", seed=5, hidden=64, heads=4, kv_heads=2, intermediate=96, vocab=300, tied=False)
TIED = TinyModel("tied", seed=6, hidden=64, heads=4, kv_heads=2, intermediate=96, vocab=300)

_GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    if name in _GGUF_NAMES:
        return _GGUF_NAMES[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{_GGUF_NAMES[part.removesuffix('.weight')]}.weight"


def interleave(matrix: np.ndarray, heads: int) -> np.ndarray:
    """The order in which GGUF's llama keeps q and k rows: the two rotary halves of each head alternate."""
    rows, inputs = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def write_gguf(
    path: Path,
    model: TinyModel = MODEL,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    kinds: Mapping[str, GGMLQuantizationType] | None = None,
    metadata: Callable[[GGUFWriter], None] = lambda _: None,
    tensors: Callable[[dict[str, np.ndarray]], None] = lambda _: None,
    tokenizer: bool = True,
    leave_out: frozenset[str] = frozenset(),
) -> dict[str, np.ndarray]:
    """Writes the model with its matrices as `kind` (`kinds` for single tensors, by their Hugging Face names).

    `metadata` and `tensors` may add to or change what is written; `leave_out` names metadata keys to leave out.

    Returns:
        The float32 tensors under Hugging Face names, in Hugging Face order, as the file's types round them.
    """
    writer = GGUFWriter(path, "llama")
    numbers: dict[str, float] = {
        "block_count": model.layers,
        "context_length": 256,
        "embedding_length": model.hidden,
        "feed_forward_length": model.intermediate,
        "attention.head_count": model.heads,
        "attention.head_count_kv": model.kv_heads,
        "rope.dimension_count": model.head_dim,
        "rope.freq_base": 10000.0,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    for key, value in numbers.items():
        if key not in leave_out:
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            add(f"llama.{key}", value)
    if tokenizer:
        add_byte_tokenizer(writer, model.vocab)
    metadata(writer)
    weights = model.weights()
    tensors(weights)
    rounded = {}
    for name, matrix in weights.items():
        this = GGMLQuantizationType.F32 if matrix.ndim == 1 else (kinds or {}).get(name, kind)
        data = gguf.quants.quantize(matrix, this)
        rounded[name] = gguf.quants.dequantize(data, this).reshape(matrix.shape)
        if ".q_proj." in name or ".k_proj." in name:
            heads = model.heads if ".q_proj." in name else model.kv_heads
            data = interleave(data, heads)  # whole rows move, and a row's blocks do not depend on its place
        writer.add_tensor(gguf_name(name) if "." in name else name, data, raw_dtype=this)
    finish(writer)
    return rounded


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def letters() -> list[str]:
    """GPT-2's letters for the bytes 0 to 255."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def add_byte_tokenizer(writer: GGUFWriter, size: int) -> None:
    """A token a byte, one merge, a control token at each end of a turn, and unused ones up to `size`."""
    tokens = [*letters(), "he", "<|im_start|>", "<|im_end|>"]
    types = [1] * 257 + [3] * 2
    types += [5] * (size - len(tokens))
    tokens += [f"[unused{i}]" for i in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    writer.add_chat_template("{{ messages[0].content }}")


def parameters_of(checkpoint: Checkpoint, scheme: str) -> list[Parameter]:
    """Parameters as a fused decoder has them, for a checkpoint of MODEL or TIED."""

    def parameter(name: str, role: Role, *sources: str) -> Parameter:
        infos = [checkpoint.tensors[source] for source in sources]
        fmt = Format.F32 if role is Role.VECTOR else choose_format(role, infos, SCHEMES[scheme])
        return Parameter(name, role, tuple(Source(info.name, info.shape) for info in infos), fmt)

    found = [parameter("embedding", Role.EMBEDDING, "model.embed_tokens.weight")]
    for layer in range(MODEL.layers):
        at = f"model.layers.{layer}."
        q, k, v = (f"{at}self_attn.{part}_proj.weight" for part in "qkv")
        found += [
            parameter(f"{layer}.norm", Role.VECTOR, at + "input_layernorm.weight"),
            parameter(f"{layer}.qkv", Role.LINEAR, q, k, v),
            parameter(f"{layer}.o", Role.LINEAR, at + "self_attn.o_proj.weight"),
            parameter(f"{layer}.gate_up", Role.LINEAR, at + "mlp.gate_proj.weight", at + "mlp.up_proj.weight"),
            parameter(f"{layer}.down", Role.LINEAR, at + "mlp.down_proj.weight"),
        ]
    found.append(parameter("norm", Role.VECTOR, "model.norm.weight"))
    if "lm_head.weight" in checkpoint.tensors:
        found.append(parameter("output", Role.EMBEDDING, "lm_head.weight"))
    return found
