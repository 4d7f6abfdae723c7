"""A Hugging Face folder as a `Checkpoint`: config.json, safetensors, and text files.

Owns which files there are. Tensors keep their names; what quantized ones are made of is `folder_quantization`'s, the
text files are `folder_text`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cupola.errors import ModelError, UnsupportedError
from cupola.quantize.formats import Quantized
from cupola.weights import folder_text, sentence_transformers
from cupola.weights.checkpoint import TensorInfo
from cupola.weights.fingerprint import fingerprint
from cupola.weights.folder_files import read_json
from cupola.weights.folder_quantization import KEYS, arrange, read_quantization
from cupola.weights.safetensors_files import HINT_AGAIN, SafetensorsFiles

CONFIG = "config.json"
GPTQ_CONFIG = "quantize_config.json"  # where older tools wrote what config.json has now
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class HuggingFaceCheckpoint:
    """A model in a Hugging Face folder; see `Checkpoint` for the members.

    Raises (on construction):
        ModelError: config.json or a weight file is missing or truncated.
        UnsupportedError: the checkpoint is quantized in a way that Cupola does not read, or has no safetensors.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self._path = path
        self._name = name or path.resolve().name
        self._config = _with_quantization(read_json(path / CONFIG), path / GPTQ_CONFIG)
        quantization = read_quantization(self._config, path / CONFIG)
        self._files = SafetensorsFiles(_weight_files(path))
        self._stored = arrange(self._files, quantization)
        self._check_index()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def name(self) -> str:
        return self._name

    @property
    def config(self) -> Mapping[str, object]:
        return self._config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return {name: stored.info for name, stored in self._stored.items()}

    def read(self, name: str) -> np.ndarray | Quantized:
        return self.read_rows(name, 0, self._stored[name].info.shape[0])

    def read_rows(self, name: str, start: int, stop: int, *, exact: bool = False) -> np.ndarray | Quantized:
        return self._stored[name].rows(start, stop, exact=exact)

    def fingerprint(self) -> str:
        texts = [*folder_text.files(self._path), *sentence_transformers.text_files(self._path)]
        named = [path for path in (self._path / CONFIG, self._path / GPTQ_CONFIG) if path.is_file()]
        return fingerprint([*named, *self._files.files, *texts])

    def write_text_files(self, folder: Path) -> None:
        folder_text.write(self._path, self._config, folder)

    def _check_index(self) -> None:
        """Every tensor that the index names must be in the file that it names."""
        if not (self._path / _INDEX).is_file():
            return
        for name, file in _weight_map(self._path / _INDEX).items():
            entry = self._files.entries.get(name)
            if entry is None or entry.file.name != file:
                raise ModelError(
                    f"{self._path / file} has no tensor {name}, which {_INDEX} says is there", hint=HINT_AGAIN
                )


def _with_quantization(config: dict[str, object], older: Path) -> dict[str, object]:
    """The configuration, with what the file of older GPTQ tools says beside it."""
    if older.is_file() and not any(key in config for key in KEYS):
        return config | {KEYS[0]: {"quant_method": "gptq", **read_json(older)}}
    return config


def _weight_files(path: Path) -> list[Path]:
    if (path / _INDEX).is_file():
        return [path / name for name in sorted(set(_weight_map(path / _INDEX).values()))]
    if (path / _SINGLE).is_file():
        return [path / _SINGLE]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickled = sorted(file.name for pattern in _PICKLED for file in path.glob(pattern))
        beside = f", only {pickled[0]}, which is a pickle: reading it runs whatever it says" if pickled else ""
        raise UnsupportedError(
            f"{path} has no *.safetensors file{beside}",
            hint="Save the weights once with save_pretrained(...); pickled .bin and .pt files are not read.",
        )
    return files


def _weight_map(index: Path) -> dict[str, str]:
    entries = read_json(index).get("weight_map")
    if not isinstance(entries, dict):
        raise ModelError(f"{index} has no weight_map", hint=HINT_AGAIN)
    return {str(name): str(file) for name, file in entries.items()}
