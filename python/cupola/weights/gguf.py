"""A GGUF file as a `Checkpoint`: Hugging Face names, Hugging Face row order, quantized rows kept as they are.

Owns the order of rows. The container is `gguf_file`'s, what an architecture calls its tensors `gguf_families`', the
metadata `gguf_config`'s and the tokenizer `gguf_tokenizer`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cupola.errors import ModelError
from cupola.quantize.formats import Quantized
from cupola.weights.checkpoint import TensorInfo
from cupola.weights.fingerprint import fingerprint
from cupola.weights.gguf_config import architecture_of, read_config
from cupola.weights.gguf_families import find
from cupola.weights.gguf_family import Family
from cupola.weights.gguf_file import GgufTensor
from cupola.weights.gguf_split import open_parts
from cupola.weights.gguf_tokenizer import write_text_files

_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)")
_HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
_FUSED = "attn_qkv"
_ONE_ROW = "shared_expert_gate.weight"
_PART_SUFFIX = re.compile(r"-\d{5}-of-\d{5}$")
_QUANTIZATION_SUFFIX = re.compile(r"[.\-](I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)


class GgufCheckpoint:
    """A model in one GGUF file, or in the parts of a split one; see `Checkpoint` for the members.

    Raises (on construction):
        ModelError: the file, or a part of it, is missing, truncated or inconsistent.
        UnsupportedError: it uses an architecture, a tensor type or a rope scaling that Cupola does not know.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_parts(path)
        self._family = find(architecture_of(self._file))
        self._config = read_config(self._file, self._family)
        self._gguf_names = {
            mapped: name for name in self._file.tensors if (mapped := huggingface_name(name, self._family)) is not None
        }
        self._tensors = {mapped: _info(mapped, self._file.tensors[name]) for mapped, name in self._gguf_names.items()}
        self._check_heads()

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def name(self) -> str:
        return _QUANTIZATION_SUFFIX.sub("", _PART_SUFFIX.sub("", self.path.stem))

    @property
    def config(self) -> Mapping[str, object]:
        return self._config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def read(self, name: str) -> np.ndarray | Quantized:
        return self.read_rows(name, 0, self._tensors[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int, *, exact: bool = False) -> np.ndarray | Quantized:
        gguf_name, order = self._gguf_names[name], self._order(name)
        if _is_one_row(name, self._file.tensors[gguf_name]):
            return np.asarray(self._file.read_rows(gguf_name, 0, self._tensors[name].shape[1])).reshape(1, -1)
        if order is None:
            rows = self._file.read_rows(gguf_name, start, stop, exact=exact)
            if name.endswith("norm.weight") and self._family.norm_offset and not isinstance(rows, Quantized):
                return rows - np.float32(self._family.norm_offset)
            return rows
        wanted = order[start:stop]
        first, last = int(wanted.min()), int(wanted.max()) + 1
        rows = self._file.read_rows(gguf_name, first, last, exact=exact)
        if not isinstance(rows, Quantized):
            return rows[wanted - first]
        minimum = None if rows.minimum is None else rows.minimum[wanted - first]
        return Quantized(rows.format, rows.values[wanted - first], rows.scale[wanted - first], minimum)

    def fingerprint(self) -> str:
        return fingerprint({self.path, *(tensor.path for tensor in self._file.tensors.values())})

    def write_text_files(self, folder: Path) -> None:
        write_text_files(self._file, folder)

    def _order(self, name: str) -> np.ndarray | None:
        """Rows of the file in Hugging Face's order; None where they lie so."""
        part = self._gguf_names[name].split(".")[-2]
        rows = self._tensors[name].shape[0]
        if self._family.interleaved and part in _HEADS:
            head = rows // self._heads(part)
            return np.arange(rows).reshape(-1, head // 2, 2).swapaxes(1, 2).reshape(-1)
        if self._family.split_by_head and part == _FUSED:
            return np.arange(rows).reshape(3, self._heads("attn_q"), -1).swapaxes(0, 1).reshape(-1)
        return None

    def _heads(self, part: str) -> int:
        return int(str(self._config[_HEADS[part]]))

    def _check_heads(self) -> None:
        for name, info in self._tensors.items():
            part = self._gguf_names[name].split(".")[-2]
            if self._family.interleaved and part in _HEADS:
                heads, pieces = self._heads(part), 2
            elif self._family.split_by_head and part == _FUSED:
                heads, pieces = self._heads("attn_q"), 3
            else:
                continue
            if heads < 1 or info.shape[0] % (pieces * heads):
                raise ModelError(
                    f"{self.path} has {self._gguf_names[name]} with {info.shape[0]} rows, which {heads} heads "
                    "do not divide into even parts"
                )


def _info(name: str, tensor: GgufTensor) -> TensorInfo:
    shape = (1, *tensor.shape) if _is_one_row(name, tensor) else tensor.shape
    return TensorInfo(name, shape, tensor.format, tensor.type.name, tensor.keeping)


def _is_one_row(name: str, tensor: GgufTensor) -> bool:
    """Whether it is a matrix of one row, which the converter writes as a vector."""
    return name.endswith(_ONE_ROW) and len(tensor.shape) == 1


def huggingface_name(name: str, family: Family) -> str | None:
    """The Hugging Face name of a GGUF tensor, or None where the model has no such weight (rope factors)."""
    stem, _, kind = name.rpartition(".")
    if stem in family.top:
        return f"{family.top[stem]}.{kind}"
    match = _LAYER_NAME.fullmatch(stem)
    if match is None:
        return None
    if f"{match[2]}.{kind}" in family.whole:
        return family.layer.format(match[1]) + family.whole[f"{match[2]}.{kind}"]
    if match[2] not in family.parts:
        return None
    return f"{family.layer.format(match[1])}{family.parts[match[2]]}.{kind}"
