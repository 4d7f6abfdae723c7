"""A GGUF file as a `Checkpoint`: Hugging Face names, Hugging Face row order, quantized rows kept as they are.

Owns the map of names and the order of q and k rows. The container is `gguf_file`'s, the metadata `gguf_config`'s and
the tokenizer `gguf_tokenizer`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cupola.errors import ModelError, UnsupportedError
from cupola.quantize.formats import Quantized
from cupola.weights.checkpoint import TensorInfo
from cupola.weights.fingerprint import fingerprint
from cupola.weights.gguf_config import EMBEDDING, OUTPUT, read_config
from cupola.weights.gguf_file import GgufFile
from cupola.weights.gguf_tokenizer import write_text_files

_TOP = {EMBEDDING: "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", OUTPUT: "lm_head.weight"}
_IN_LAYER = {
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
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_QUANTIZATION_SUFFIX = re.compile(r"[.\-](I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)


class GgufCheckpoint:
    """A model in one GGUF file; see `Checkpoint` for the members.

    Raises (on construction):
        ModelError: the file is missing, truncated or inconsistent.
        UnsupportedError: it uses a tensor type or a rope scaling that Cupola does not know.
    """

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        parts = self._file.metadata.get("split.count", 0)
        if isinstance(parts, int) and parts > 1:
            raise UnsupportedError(
                f"{path} is one of {parts} parts of a split GGUF model",
                hint="Merge the parts into one file with `llama-gguf-split --merge`.",
            )
        self._config = read_config(self._file)
        self._gguf_names = {
            mapped: name for name in self._file.tensors if (mapped := huggingface_name(name)) is not None
        }
        self._tensors = {
            mapped: TensorInfo(mapped, self._file.tensors[name].shape, self._file.tensors[name].format)
            for mapped, name in self._gguf_names.items()
        }
        self._check_heads()

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def name(self) -> str:
        return _QUANTIZATION_SUFFIX.sub("", self.path.stem)

    @property
    def config(self) -> Mapping[str, object]:
        return self._config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def read(self, name: str) -> np.ndarray | Quantized:
        return self.read_rows(name, 0, self._tensors[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray | Quantized:
        head = self._head_rows(name)
        if head is None:
            return self._file.read_rows(self._gguf_names[name], start, stop)
        first, last = start // head * head, -(-stop // head) * head  # whole heads around the wanted rows
        rows = self._file.read_rows(self._gguf_names[name], first, last)
        order = (np.arange(first, last).reshape(-1, head // 2, 2).swapaxes(1, 2).reshape(-1) - first)[
            start - first : stop - first
        ]
        if not isinstance(rows, Quantized):
            return rows[order]
        minimum = None if rows.minimum is None else rows.minimum[order]
        return Quantized(rows.format, rows.values[order], rows.scale[order], minimum)

    def fingerprint(self) -> str:
        return fingerprint([self.path])

    def write_text_files(self, folder: Path) -> None:
        write_text_files(self._file, folder)

    def _head_rows(self, name: str) -> int | None:
        """Rows of one head where the file has them in another order than Hugging Face.

        GGUF's llama keeps the two rotary halves of a head interleaved (0, h, 1, h+1, ...), for which its q and k rows
        were permuted; other architectures keep Hugging Face's order.
        """
        if self._config["model_type"] != "llama":
            return None
        if not name.endswith(("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")):
            return None
        heads = self._config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
        return self._tensors[name].shape[0] // int(str(heads))

    def _check_heads(self) -> None:
        if self._config["model_type"] != "llama":
            return
        for key in ("num_attention_heads", "num_key_value_heads"):
            heads, part = int(str(self._config[key])), "q_proj" if key == "num_attention_heads" else "k_proj"
            for name, info in self._tensors.items():
                if f".{part}." in name and (heads < 1 or info.shape[0] % (2 * heads)):
                    raise ModelError(
                        f"{self.path} has {self._gguf_names[name]} with {info.shape[0]} rows, which {heads} heads "
                        "do not divide into even parts"
                    )


def huggingface_name(name: str) -> str | None:
    """The Hugging Face name of a GGUF tensor, or None where the model has no such weight (rope factors)."""
    if name in _TOP:
        return _TOP[name]
    match = _LAYER_NAME.fullmatch(name)
    if match is None or match[2] not in _IN_LAYER:
        return None
    return f"model.layers.{match[1]}.{_IN_LAYER[match[2]]}.{match[3]}"
