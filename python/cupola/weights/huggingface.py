"""A Hugging Face folder as a `Checkpoint`: config.json, safetensors, tokenizer.json.

Owns the layout of such a folder. Tensors keep their names; F16 and BF16 become float32 as they are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401 (registers with NumPy the bfloat16 that safetensors asks it for)
import numpy as np
from safetensors import SafetensorError, safe_open

from cupola.errors import ModelError, UnsupportedError
from cupola.quantize.formats import Format
from cupola.weights import sentence_transformers
from cupola.weights.checkpoint import TensorInfo
from cupola.weights.fingerprint import fingerprint
from cupola.weights.storage import write_text

CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_FLOATS = ("F32", "F16", "BF16")
_HINT_AGAIN = "Download the checkpoint again."


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies, and its element type as safetensors names it."""

    file: Path
    dtype: str


class HuggingFaceCheckpoint:
    """A model in a Hugging Face folder; see `Checkpoint` for the members.

    Raises (on construction):
        ModelError: config.json or a weight file is missing or truncated.
        UnsupportedError: the checkpoint is quantized in a way that Cupola does not read, or has no safetensors.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self._path = path
        self._name = name or path.resolve().name
        self._config = _read_json(path / CONFIG)
        quantization = self._config.get("quantization_config")
        if isinstance(quantization, dict):
            raise UnsupportedError(
                f"{path / CONFIG} says that the weights are quantized with {quantization.get('quant_method')!r}",
                hint="Use the original checkpoint, or a GGUF file; Cupola quantizes as it compiles.",
            )
        self._files = _weight_files(path)
        self._tensors, self._places = _list_tensors(self._files)
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
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        return self.read_rows(name, 0, self._tensors[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int, *, exact: bool = False) -> np.ndarray:  # noqa: ARG002
        place = self._places[name]
        if place.dtype not in _FLOATS:
            raise UnsupportedError(
                f"tensor {name} in {place.file} has the type {place.dtype}", hint=f"Cupola reads {', '.join(_FLOATS)}."
            )
        try:
            # Opened anew each time: the library maps whole files, and a mapping counts as memory while it lives.
            with safe_open(place.file, framework="np") as file:
                rows: np.ndarray = file.get_slice(name)[start:stop]
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{place.file} cannot be read: {error}", hint=_HINT_AGAIN) from error
        return rows.astype(np.float32, copy=False)

    def fingerprint(self) -> str:
        texts = [path for path in self._text_files() if path.is_file()]
        return fingerprint([self._path / CONFIG, *self._files, *texts, *sentence_transformers.text_files(self._path)])

    def write_text_files(self, folder: Path) -> None:
        """Writes the text files into `folder`.

        Raises:
            ModelError: there is no tokenizer.json, or a file is not JSON.
            StorageError: the folder cannot be written.
        """
        tokenizer, settings, template_file, generation = self._text_files()
        if not tokenizer.is_file():
            raise ModelError(
                f"{self._path} has no tokenizer.json",
                hint="Save the tokenizer once with AutoTokenizer.from_pretrained(...).save_pretrained(...).",
            )
        write_text(folder / tokenizer.name, _read_text(tokenizer))
        values = _read_json(settings) if settings.is_file() else {}
        if template_file.is_file():
            template: str | None = _read_text(template_file)
        else:
            template = _default_template(values.get("chat_template"))
        if template:
            write_text(folder / template_file.name, template)
        given = _read_json(generation) if generation.is_file() else {}
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if given.get(key) is None and self._config.get(key) is not None:
                given[key] = self._config[key]
        write_text(folder / generation.name, json.dumps(given, indent=2) + "\n")

    def _text_files(self) -> tuple[Path, Path, Path, Path]:
        names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
        tokenizer, settings, template, generation = (self._path / name for name in names)
        return tokenizer, settings, template, generation

    def _check_index(self) -> None:
        """Every tensor that the index names must be in the file that it names."""
        if not (self._path / _INDEX).is_file():
            return
        for name, file in _weight_map(self._path / _INDEX).items():
            place = self._places.get(name)
            if place is None or place.file.name != file:
                raise ModelError(
                    f"{self._path / file} has no tensor {name}, which {_INDEX} says is there", hint=_HINT_AGAIN
                )


def _weight_files(path: Path) -> list[Path]:
    if (path / _INDEX).is_file():
        return [path / name for name in sorted(set(_weight_map(path / _INDEX).values()))]
    if (path / _SINGLE).is_file():
        return [path / _SINGLE]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise UnsupportedError(
            f"{path} has no *.safetensors file",
            hint="Save the weights once with save_pretrained(...); pickled .bin and .pt files are not read.",
        )
    return files


def _weight_map(index: Path) -> dict[str, str]:
    entries = _read_json(index).get("weight_map")
    if not isinstance(entries, dict):
        raise ModelError(f"{index} has no weight_map", hint=_HINT_AGAIN)
    return {str(name): str(file) for name, file in entries.items()}


def _list_tensors(files: list[Path]) -> tuple[dict[str, TensorInfo], dict[str, _Place]]:
    """The tensors of all files; opening a file also proves that it is whole."""
    tensors: dict[str, TensorInfo] = {}
    places: dict[str, _Place] = {}
    for path in files:
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118 (the object is no mapping)
                    part = file.get_slice(name)
                    tensors[name] = TensorInfo(name, tuple(part.get_shape()), Format.F32)
                    places[name] = _Place(path, part.get_dtype())
        except FileNotFoundError as error:
            raise ModelError(f"{path} is missing", hint=_HINT_AGAIN) from error
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} is truncated or damaged: {error}", hint=_HINT_AGAIN) from error
    return tensors, places


def _default_template(value: object) -> str | None:
    """A template is a string, or a list of named ones of which "default" is meant."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        for entry in value:
            if isinstance(entry, dict) and entry.get("name") == "default":
                return str(entry.get("template"))
    return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing", hint=_HINT_AGAIN) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_HINT_AGAIN) from error


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON: {error}", hint=_HINT_AGAIN) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds {type(value).__name__} in place of an object", hint=_HINT_AGAIN)
    return value
